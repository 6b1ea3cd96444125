"""Streams whose sockets the worker took over: it joins each group's frames into one chunk and writes it in passes.

Needs gevent.
"""

from .fanout import Fanout

__all__ = ["Fanout"]
