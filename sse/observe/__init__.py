"""What operators see: log lines, the access log, request ids, traces, the console's statistics."""
