"""Attacks on a real server. Each file is named after its kind of attack."""
