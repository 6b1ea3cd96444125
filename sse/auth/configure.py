"""Turns the access settings into keys, and checks them before the service starts."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from .algorithms import SUPPORTED
from .decision import BadAuthSetting
from .keyfile import MAX_RETIRED, KeyFile
from .publish_key import check_publish_key, digest, parse_publish_keys

if TYPE_CHECKING:
    from .keys import Key
    from .tokens import TokenVerifier

# Seconds for which the previous content of SSE_PUBLISH_KEY_FILE and SSE_JWT_KEY_FILE stays valid after a
# change. A Secret takes a minute or two to reach all pods and publishers (the kubelet checks once a minute),
# and a single-key file cannot hold both the old and the new key. To revoke a key at once, restart.
# SSE_JWKS_FILE has no grace period: a key set lists old and new keys together, and removing a key revokes it.
ROTATION_GRACE: Final = 300.0

T = TypeVar("T")
U = TypeVar("U")


class Secret(Protocol):
    """A value that hides its content when printed, such as pydantic's SecretStr."""

    def get_secret_value(self) -> str: ...


class AuthSettings(Protocol):
    """The settings used here. ``sse.settings.Settings`` implements this."""

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


Entries = Callable[[], Sequence[T]]
Clock = Callable[[], float]


class Source(Generic[T]):
    """The keys of one setting. A call returns those that are valid now.

    origin: the values it was built from. If they do not change, the source is reused, with its key file's memory.
    fading: the setting's earlier keys, each valid for a limited time.
    """

    def __init__(self, setting: str, origin: object, current: Entries[T], fading: Sequence[Entries[T]] = ()) -> None:
        self.setting = setting
        self.origin = origin
        self.current = current
        self.fading = tuple(fading)

    def __call__(self) -> Sequence[T]:
        if not self.fading:
            return self.current()
        return [*self.current(), *(entry for before in self.fading for entry in before())]


def _source(
    setting: str,
    origin: object,
    make: Callable[[], Entries[T]],
    before: Sequence[Source[T]],
    grace: float,
    clock: Clock,
) -> Source[T]:
    """Return the setting's source, given the previous sources (``before``). A replaced key in the settings file stays
    valid for ``grace`` seconds, as in a key file; a removed one does not."""
    old = next((source for source in before if source.setting == setting), None)
    if old is None:
        return Source(setting, origin, make())
    if old.origin == origin:
        return old
    current = make()
    if not grace:
        return Source(setting, origin, current)
    replaced, until = tuple(old.current()), clock() + grace
    fading = (lambda: replaced if clock() < until else (), *(entries for entries in old.fading if entries()))
    return Source(setting, origin, current, fading[:MAX_RETIRED])


def publish_keys(
    settings: AuthSettings, clock: Clock = time.monotonic, before: Sequence[Source[bytes]] = ()
) -> list[Source[bytes]]:
    """Return the sources of publish key digests; empty if no key is set. Raises BadAuthSetting."""
    sources: list[Source[bytes]] = []
    secret, path = settings.sse_publish_key, settings.sse_publish_key_file
    if secret is not None:

        def digests() -> Entries[bytes]:
            one = (digest(checked("SSE_PUBLISH_KEY", check_publish_key, secret.get_secret_value())),)
            return lambda: one

        sources.append(_source("SSE_PUBLISH_KEY", secret, digests, before, ROTATION_GRACE, clock))
    if path is not None:
        make = partial(_key_file, "SSE_PUBLISH_KEY_FILE", path, parse_publish_keys, ROTATION_GRACE, clock)
        sources.append(_source("SSE_PUBLISH_KEY_FILE", path, make, before, ROTATION_GRACE, clock))
    return sources


def token_keys(
    settings: AuthSettings, clock: Clock = time.monotonic, before: "Sequence[Source[Key]]" = ()
) -> "list[Source[Key]]":
    """Return the sources of token keys; empty if no key is set. Raises BadAuthSetting."""
    # Use "is None", not falsehood: an empty key is a mistake to refuse, not a missing key.
    if settings.sse_jwt_key is None and settings.sse_jwt_key_file is None and settings.sse_jwks_file is None:
        return []
    from .keys import parse_jwks, parse_key  # 9 MB, so only where tokens are used

    allowed = tuple(settings.sse_jwt_algorithms)
    if not allowed or not set(allowed) <= set(SUPPORTED):  # this excludes "none", too
        raise BadAuthSetting("SSE_JWT_ALGORITHMS", f"it must be a list from {', '.join(SUPPORTED)}")

    def key_of(content: bytes) -> "Sequence[Key]":
        return parse_key(content, allowed=allowed)

    def keys_of(content: bytes) -> "Sequence[Key]":
        return parse_jwks(content, allowed=allowed)

    sources: list[Source[Key]] = []
    secret = settings.sse_jwt_key
    if secret is not None:

        def one() -> "Entries[Key]":
            keys = checked("SSE_JWT_KEY", key_of, secret.get_secret_value().encode())
            return lambda: keys

        sources.append(_source("SSE_JWT_KEY", (secret, allowed), one, before, ROTATION_GRACE, clock))
    for setting, path, parse, grace in (
        ("SSE_JWT_KEY_FILE", settings.sse_jwt_key_file, key_of, ROTATION_GRACE),
        ("SSE_JWKS_FILE", settings.sse_jwks_file, keys_of, 0.0),
    ):
        if path is not None:
            make = partial(_key_file, setting, path, parse, grace, clock)
            sources.append(_source(setting, (path, allowed), make, before, grace, clock))
    return sources


def _key_file(
    setting: str, path: Path, parse: Callable[[bytes], Sequence[T]], grace: float, clock: Clock
) -> Entries[T]:
    return KeyFile(setting, path, parse, grace=grace, clock=clock).entries


def token_verifier(
    settings: AuthSettings, sources: "Sequence[Source[Key]]"
) -> "TokenVerifier | None":
    """Return the token verifier; None if no token key is set."""
    if not sources:
        return None
    from .tokens import TokenVerifier

    return TokenVerifier(
        lambda: [key for source in sources for key in source()],
        algorithms=settings.sse_jwt_algorithms,
        issuers=[settings.sse_jwt_issuer] if settings.sse_jwt_issuer else [],
        audiences=[settings.sse_jwt_audience] if settings.sse_jwt_audience else [],
    )


def checked(setting: str, parse: Callable[[U], T], value: U) -> T:
    """Return ``parse(value)``; turn a ValueError into BadAuthSetting, which names the setting."""
    try:
        return parse(value)
    except ValueError as error:
        raise BadAuthSetting(setting, str(error)) from None
