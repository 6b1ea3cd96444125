"""Finds settings that are valid alone but conflict with each other, and reports one line for each conflict."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

from pydantic import SecretStr

from ..auth.algorithms import MIN_SECRET_BYTES
from ..log import check_url

_KEYS = ("sse_publish_key", "sse_publish_key_file", "sse_jwt_key", "sse_jwt_key_file", "sse_jwks_file")


class Checked(Protocol):
    """The settings that the checks read, in addition to the keys."""

    port: int
    health_port: int
    web_concurrency: int
    sse_log: str
    sse_auth: str
    sse_jwt_key: SecretStr | None
    sse_jwt_algorithms: tuple[str, ...]
    sse_jwks_file: object
    sse_otel: bool
    model_fields_set: set[str]


def conflicts(settings: Checked) -> list[str]:
    """Return one line per conflict, without secrets."""
    return [*_listeners(settings), *_log(settings), *_access(settings), *_tokens(settings), *_otel(settings)]


def _listeners(settings: Checked) -> list[str]:
    if settings.port == settings.health_port != 0:
        return [f"HEALTH_PORT={settings.health_port} cannot be used with PORT={settings.port}: "
                "it must be another port"]
    return []


def _log(settings: Checked) -> list[str]:
    if settings.web_concurrency > 1 and not check_url(settings.sse_log).shared:
        return [f"SSE_LOG={settings.sse_log!r} cannot be used with WEB_CONCURRENCY={settings.web_concurrency} (each "
                "worker would have its own log): it must be a log that workers share, sqlite:///… or redis://…"]
    return []


def _access(settings: Checked) -> list[str]:
    """Refuse ``none`` with a key: it would let everybody in despite the key."""
    named = [key.upper() for key in _KEYS if getattr(settings, key) is not None]
    if settings.sse_auth == "none" and named:
        return [f"SSE_AUTH='none' cannot be used with {' and '.join(named)}: it must be auto, or no key "
                "may be set"]
    return []


def _tokens(settings: Checked) -> list[str]:
    lines = []
    if settings.sse_jwt_key is not None:
        key = settings.sse_jwt_key.get_secret_value()
        pem = "-----BEGIN " in key
        algorithms = ",".join(settings.sse_jwt_algorithms)
        if pem and algorithms == "HS256":
            lines.append("SSE_JWT_ALGORITHMS='HS256' cannot be used with the public key in SSE_JWT_KEY: "
                         "it must be that key's algorithm, RS256, ES256 or EdDSA")
        elif not pem and "HS256" not in settings.sse_jwt_algorithms:
            lines.append(f"SSE_JWT_KEY=*** cannot be used with SSE_JWT_ALGORITHMS={algorithms!r}: "
                         "it must be a public key in PEM form")
        elif not pem and len(key.encode()) < MIN_SECRET_BYTES:
            lines.append("SSE_JWT_KEY=*** cannot be used (too short for HS256): "
                         f"it must be at least {MIN_SECRET_BYTES} bytes")
    if settings.sse_jwks_file is not None and "sse_jwt_algorithms" not in settings.model_fields_set:
        lines.append("SSE_JWT_ALGORITHMS must be set with SSE_JWKS_FILE: a list from HS256, RS256, ES256 and "
                     "EdDSA, those of the keys in that file")
    return lines


def _otel(settings: Checked) -> list[str]:
    if settings.sse_otel and not _installed("opentelemetry.exporter.otlp.proto.http"):
        return ["SSE_OTEL=true cannot be used without the packages of OpenTelemetry: install headwater[otel], or "
                "requirements-otel.txt"]
    return []


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:     # a parent package is missing
        return False
