"""Requirements for token keys. Separate from ``keys``, which imports 9 MB, because the settings check them too."""

from typing import Final

# One good algorithm of each kind: fewer ways to go wrong.
SUPPORTED: Final = ("HS256", "RS256", "ES256", "EdDSA")

MIN_SECRET_BYTES: Final = 32  # RFC 7518 §3.2: a key of the hash's size or larger
