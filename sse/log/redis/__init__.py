"""The log in a Redis Stream, shared by any number of pods."""
