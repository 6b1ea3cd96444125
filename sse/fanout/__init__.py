"""Streams whose sockets were taken over: one chunk for each group, written in passes. Needs gevent."""
