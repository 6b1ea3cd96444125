"""HTTP in, answers out: routes, the fast path, publishing, streaming, the console."""
