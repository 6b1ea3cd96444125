"""What is exported to Prometheus, for the whole pod."""
