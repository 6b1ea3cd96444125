"""The metrics of the whole pod, for Prometheus."""
