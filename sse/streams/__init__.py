"""One worker's view of the log: which stream has seen what. Knows no socket."""
