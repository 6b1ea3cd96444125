"""What is left after a power cut: a disk that drops what was not flushed, under the real service."""
