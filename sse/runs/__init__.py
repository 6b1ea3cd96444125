"""Runs: work whose stream outlives its reader. Begin with ``states.py``."""
