"""From settings to keys: what the access settings mean, checked once, before anything is served."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from sse.auth.decision import BadAuthSetting
from sse.auth.keyfile import KeyFile
from sse.auth.publish_key import check_publish_key, digest, parse_publish_keys

if TYPE_CHECKING:
    from sse.auth.keys import Key
    from sse.auth.tokens import TokenVerifier

# Seconds for which the earlier content of SSE_PUBLISH_KEY_FILE and SSE_JWT_KEY_FILE stays valid after a
# change. A Secret reaches the pods of a cluster, and the publishers, over a minute or two (the kubelet looks
# once a minute), and a file with a single key cannot hold the old and the new one. To revoke a key at once:
# restart. SSE_JWKS_FILE has no such time: a key set lists old and new side by side, and taking a key out of
# it is how it is revoked.
ROTATION_GRACE: Final = 300.0

T = TypeVar("T")
U = TypeVar("U")


class Secret(Protocol):
    """A value that does not show itself, such as pydantic's SecretStr."""

    def get_secret_value(self) -> str: ...


class AuthSettings(Protocol):
    """What is needed of the settings, by their names. `sse.settings.Settings` is one."""

    @property
    def sse_auth(self) -> str: ...
    @property
    def sse_publish_key(self) -> Secret | None: ...
    @property
    def sse_publish_key_file(self) -> Path | None: ...
    @property
    def sse_jwt_key(self) -> Secret | None: ...
    @property
    def sse_jwt_key_file(self) -> Path | None: ...
    @property
    def sse_jwks_file(self) -> Path | None: ...
    @property
    def sse_jwt_algorithms(self) -> Sequence[str]: ...
    @property
    def sse_jwt_issuer(self) -> str | None: ...
    @property
    def sse_jwt_audience(self) -> str | None: ...
    @property
    def sse_public_channels(self) -> Sequence[str]: ...
    @property
    def sse_cors_origins(self) -> Sequence[str]: ...
    @property
    def sse_trusted_proxies(self) -> Sequence[str]: ...


Source = Callable[[], Sequence[T]]
Clock = Callable[[], float]


def publish_keys(settings: AuthSettings, clock: Clock = time.monotonic) -> list[Source[bytes]]:
    """Where the digests of the publish keys come from; empty if none is set. Raises BadAuthSetting."""
    sources: list[Source[bytes]] = []
    if settings.sse_publish_key is not None:
        key = checked("SSE_PUBLISH_KEY", check_publish_key, settings.sse_publish_key.get_secret_value())
        digests = (digest(key),)
        sources.append(lambda: digests)
    if settings.sse_publish_key_file is not None:
        path = settings.sse_publish_key_file
        file = KeyFile("SSE_PUBLISH_KEY_FILE", path, parse_publish_keys, grace=ROTATION_GRACE, clock=clock)
        sources.append(file.entries)
    return sources


def token_keys(settings: AuthSettings, clock: Clock = time.monotonic) -> "list[Source[Key]]":
    """Where the keys for tokens come from; empty if none is set. Raises BadAuthSetting."""
    # An empty key is a mistake to be refused, not the absence of one: hence "is None", and not falsehood.
    if settings.sse_jwt_key is None and settings.sse_jwt_key_file is None and settings.sse_jwks_file is None:
        return []
    from sse.auth.keys import SUPPORTED, parse_jwks, parse_key  # 9 MB that only those pay who use tokens

    allowed = tuple(settings.sse_jwt_algorithms)
    if not allowed or not set(allowed) <= set(SUPPORTED):  # "none" is one of those that it must not be
        raise BadAuthSetting("SSE_JWT_ALGORITHMS", f"it must be a list from {', '.join(SUPPORTED)}")

    def key_of(content: bytes) -> "Sequence[Key]":
        return parse_key(content, allowed=allowed)

    def keys_of(content: bytes) -> "Sequence[Key]":
        return parse_jwks(content, allowed=allowed)

    sources: list[Source[Key]] = []
    if settings.sse_jwt_key is not None:
        keys = checked("SSE_JWT_KEY", key_of, settings.sse_jwt_key.get_secret_value().encode())
        sources.append(lambda: keys)
    if settings.sse_jwt_key_file is not None:
        path = settings.sse_jwt_key_file
        sources.append(KeyFile("SSE_JWT_KEY_FILE", path, key_of, grace=ROTATION_GRACE, clock=clock).entries)
    if settings.sse_jwks_file is not None:
        path = settings.sse_jwks_file
        sources.append(KeyFile("SSE_JWKS_FILE", path, keys_of, grace=0, clock=clock).entries)
    return sources


def token_verifier(settings: AuthSettings, clock: Clock = time.monotonic) -> "TokenVerifier | None":
    """The verifier of tokens; None if no key for tokens is set. Raises BadAuthSetting."""
    sources = token_keys(settings, clock)
    if not sources:
        return None
    from sse.auth.tokens import TokenVerifier

    return TokenVerifier(
        lambda: [key for source in sources for key in source()],
        algorithms=settings.sse_jwt_algorithms,
        issuers=[settings.sse_jwt_issuer] if settings.sse_jwt_issuer else [],
        audiences=[settings.sse_jwt_audience] if settings.sse_jwt_audience else [],
    )


def checked(setting: str, parse: Callable[[U], T], value: U) -> T:
    """`parse(value)`, with a ValueError as BadAuthSetting, which names the setting."""
    try:
        return parse(value)
    except ValueError as error:
        raise BadAuthSetting(setting, str(error)) from None
