"""Attacks on the real server, each file named after its kind; the wire is a raw socket where the wire matters."""
