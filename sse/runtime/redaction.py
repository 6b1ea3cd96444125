"""What may stand in a log line: no secrets, and no line breaks that a client chose.

An EventSource cannot set headers, so tokens do travel in URLs, and URLs get into access logs, error messages
and Referer headers. Redaction errs on the side of too much: a harmless value lost from a log line costs less
than a token in it.
"""

import logging
import re
from typing import Final

MASK: Final = "***"

# Ends of parameter names whose value is a secret (access_token, sse_token, publish_key, …).
_SECRET_NAMES: Final = ("token", "password", "passwd", "pass", "secret", "_key", "apikey", "api-key")


def _encodable(name: str) -> str:
    """A pattern for `name` in which any character may be percent-encoded.

    The server decodes parameter names: ``?access%5Ftoken=`` works, and must not be a way past this.
    """
    return "".join(f"(?:{re.escape(char)}|%{ord(char):02x}|%{ord(char.upper()):02x})" for char in name)


# A parameter, also inside another URL's parameter (where "=" is %3D). Its value ends where a query's, a
# cookie's or a quoted string's does.
_PARAMETER: Final = re.compile(
    rf"((?:{'|'.join(_encodable(name) for name in _SECRET_NAMES)})(?:=|%3d))[^&;\s\"'<>#]+", re.IGNORECASE
)
# RFC 9110 §11.4: a scheme, a space, the credentials.
_CREDENTIALS: Final = re.compile(r"\b(bearer|basic)(\s+)[^\s,;\"']+", re.IGNORECASE)
# A JSON Web Token wherever it stands: its header is a JSON object, and '{"' is 'eyJ' in base64url. The
# look-behind lets each run of characters be tried once: a search that started again at each 'eyJ' would be
# quadratic.
_JWT: Final = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)?")
_RUN: Final = re.compile(r"[^\s\"'<>]+")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_AUTHORITY_END: Final = re.compile(r"[/?#]|$")

# What ends a line or rewrites it on a terminal: C0, DEL and C1 controls, the Unicode line separators, the
# bidirectional controls; and lone surrogates, which a UTF-8 log file cannot hold.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def redact(text: str) -> str:
    """`text` with tokens, keys and passwords replaced by ``***``. Never raises; idempotent; linear in
    time."""
    if "://" in text and "@" in text:
        text = _RUN.sub(lambda run: _without_userinfo(run[0]), text)
    text = _JWT.sub(MASK, text)
    text = _CREDENTIALS.sub(rf"\1\2{MASK}", text)
    # The guard spares ordinary lines, one for each request, the most expensive search.
    return _PARAMETER.sub(rf"\1{MASK}", text) if "=" in text or "%3" in text else text


def redact_url(url: str) -> str:
    """Mask what may be a secret in one URL, however malformed: all before the last ``@``, and what ``redact`` masks.

    Stricter than ``redact``, which must leave the ``user@host`` of an ordinary line alone.
    """
    before, at, after = url.rpartition("@")
    if at:
        scheme = _SCHEME.match(before)
        url = f"{scheme[0] if scheme else ''}{MASK}@{after}"
    return redact(url)


def _without_userinfo(run: str) -> str:
    """`run` (no blanks in it) with user and password of each URL masked.

    Of a web address only the authority is looked at, as its path may contain "@". Of any other, the log's
    above all, everything up to the last "@": a "/" in a password that nobody encoded makes the address
    invalid, and it is the invalid address that an error message quotes.
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
    r"""`text` as one printable line of at most about `limit` characters, control characters as ``\x0a``.

    Stops log injection (a path with an encoded line feed that forges a second log line) and one request from
    writing megabytes of log.
    """
    if len(text) > limit:
        text = text[:limit] + "…"
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Redaction(logging.Filter):
    """Makes records one line without secrets: for a logger that quotes requests which it could not understand."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = one_line(redact(record.getMessage())), None
        return True
