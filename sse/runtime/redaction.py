"""Keeps secrets, and line breaks that a client chose, out of log lines.

An EventSource cannot set headers, so tokens travel in URLs, and URLs get into access logs, error messages and Referer
headers. Redaction errs on the side of too much: losing a harmless value costs less than logging a token.
"""

import logging
import re
from typing import Final

MASK: Final = "***"

# Ends of parameter names whose value is a secret (access_token, sse_token, publish_key, …).
_SECRET_NAMES: Final = ("token", "password", "passwd", "pass", "secret", "_key", "apikey", "api-key")


def _encodable(name: str) -> str:
    """Return a pattern for `name` in which any character may be percent-encoded.

    The server decodes parameter names, so ``?access%5Ftoken=`` works, and must be redacted, too.
    """
    return "".join(f"(?:{re.escape(char)}|%{ord(char):02x}|%{ord(char.upper()):02x})" for char in name)


# A parameter, also inside another URL's parameter (where "=" is %3D). Its value ends where a query's, a cookie's or a
# quoted string's does.
_PARAMETER: Final = re.compile(
    rf"((?:{'|'.join(_encodable(name) for name in _SECRET_NAMES)})(?:=|%3d))[^&;\s\"'<>#]+", re.IGNORECASE
)
# RFC 9110 §11.4: a scheme, a space, the credentials.
_CREDENTIALS: Final = re.compile(r"\b(bearer|basic)(\s+)[^\s,;\"']+", re.IGNORECASE)
# A JSON Web Token, anywhere: its header is a JSON object, and '{"' is 'eyJ' in base64url. The look-behind makes the
# search try each run of characters once; starting again at each 'eyJ' would be quadratic.
_JWT: Final = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)?")
_RUN: Final = re.compile(r"[^\s\"'<>]+")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_AUTHORITY_END: Final = re.compile(r"[/?#]|$")

# What ends a line or rewrites it on a terminal: C0, DEL and C1 controls, the Unicode line separators, the bidirectional
# controls; and lone surrogates, which UTF-8 cannot encode.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def redact(text: str) -> str:
    """Return `text` with tokens, keys and passwords replaced by ``***``. Never raises; idempotent; linear time."""
    if "://" in text and "@" in text:
        text = _RUN.sub(lambda run: _without_userinfo(run[0]), text)
    text = _JWT.sub(MASK, text)
    text = _CREDENTIALS.sub(rf"\1\2{MASK}", text)
    # The check saves the most expensive search on most lines.
    return _PARAMETER.sub(rf"\1{MASK}", text) if "=" in text or "%3" in text else text


def redact_url(url: str) -> str:
    """Mask the secrets of one URL, however malformed: everything before the last ``@``, and what ``redact`` masks.

    ``redact`` alone leaves ``user@host`` as it is, because ordinary lines contain it.
    """
    before, at, after = url.rpartition("@")
    if at:
        scheme = _SCHEME.match(before)
        url = f"{scheme[0] if scheme else ''}{MASK}@{after}"
    return redact(url)


def _without_userinfo(run: str) -> str:
    """Mask user and password of each URL in `run`, which contains no blanks.

    In a web address only the authority is searched, because its path may contain "@". In any other, such as SSE_LOG,
    everything up to the last "@" is masked: a "/" in a password that nobody encoded makes the address invalid, and
    error messages quote invalid addresses.
    """
    done, position = [], 0
    while (at := run.find("://", position)) >= 0:
        start = at + len("://")
        web = run[max(0, at - 5) : at].lower().endswith(("http", "https"))
        end = _AUTHORITY_END.search(run, start).start() if web else len(run)  # type: ignore[union-attr]  # has "$"
        sign = run.rfind("@", start, end)
        done.append(run[position:start])
        if sign >= 0:
            done.append(MASK)
        position = max(sign, start)
        if not web:
            break  # no "@" is left
    return "".join(done) + run[position:]


def one_line(text: str, limit: int = 2000) -> str:
    r"""Return `text` as one printable line of about `limit` characters at most, control characters as ``\x0a``.

    Threats: a path with an encoded line feed forges a second log line; one request writes megabytes of log.
    """
    if len(text) > limit:
        text = text[:limit] + "…"
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Redaction(logging.Filter):
    """Turns records into one line without secrets, for a logger that quotes requests it could not parse."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = one_line(redact(record.getMessage())), None
        return True
