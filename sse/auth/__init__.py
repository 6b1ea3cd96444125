"""Who may publish and who may read: keys, tokens, patterns, origins. What the rest of the service uses of it.

`policy` has the rules as a table, `authenticator` asks them. `keys` and `tokens` import PyJWT and
cryptography, and are imported only where tokens are configured.
"""

from .address import address_bucket, client_address, parse_networks
from .authenticator import Authenticator
from .cli import sse_commands
from .configure import AuthSettings
from .cors import cors_headers
from .decision import AccessDenied, BadAuthSetting, Grant
from .origin import all_loopback
from .policy import Publishing
from .rate import PublishRate
from .redact import one_line, redact

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
