"""The table of raw-socket cases: what an HTTP server must do with time, limits and broken peers.

``conversation`` is one connection under the eyes of a case, ``steps`` are the words a case is written in,
``case`` has the settings they run with; the rest is data.
"""
