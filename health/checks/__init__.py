"""What the probes judge: the table of our own checks, and those that an app adds."""
