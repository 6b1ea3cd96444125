"""Who may publish and who may read: keys, tokens, patterns, origins. What the rest of the service uses of it.

`policy` has the rules as a table, `authenticator` asks them. `keys` and `tokens` import PyJWT and
cryptography, and are imported only where tokens are configured.
"""

from sse.auth.address import address_bucket, client_address, parse_networks
from sse.auth.authenticator import Authenticator
from sse.auth.cli import sse_commands
from sse.auth.configure import AuthSettings
from sse.auth.cors import cors_headers
from sse.auth.decision import AccessDenied, BadAuthSetting, Grant
from sse.auth.origin import all_loopback
from sse.auth.policy import Publishing
from sse.auth.rate import PublishRate
from sse.auth.redact import one_line, redact

__all__ = [
    "AccessDenied",
    "AuthSettings",
    "Authenticator",
    "BadAuthSetting",
    "Grant",
    "PublishRate",
    "Publishing",
    "address_bucket",
    "all_loopback",
    "client_address",
    "cors_headers",
    "one_line",
    "parse_networks",
    "redact",
    "sse_commands",
]
