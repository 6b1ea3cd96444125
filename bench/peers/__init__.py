"""The servers to measure; `KNOWN` has them by name."""

from __future__ import annotations

from bench.peers.base import Peer
from bench.peers.better_sse import BetterSSE
from bench.peers.centrifugo import Centrifugo
from bench.peers.durable_streams import DurableStreams
from bench.peers.flask_plain import PlainGevent, PlainGthread
from bench.peers.flask_sse import FlaskSSE
from bench.peers.golang import Go
from bench.peers.headwater import Headwater
from bench.peers.mercure import Mercure
from bench.peers.nchan import Nchan
from bench.peers.starlette import Starlette

_ALL: list[Peer] = [
    Headwater(),
    Headwater(log="memory"),
    Headwater(log="redis"),
    Headwater(workers=2),
    Headwater(syncs=True),
    Go(),
    Nchan(),
    Mercure(),
    Mercure(transport="local"),
    Centrifugo(),
    Centrifugo(engine="redis"),
    DurableStreams(),
    BetterSSE(),
    Starlette(),
    PlainGevent(),
    PlainGthread(),
    FlaskSSE(),
]

KNOWN: dict[str, Peer] = {peer.name: peer for peer in _ALL}

# What runs by default; the other variants of Headwater must be named.
DEFAULT = [name for name in KNOWN if name == "headwater-sync" or not name.startswith("headwater-")]
