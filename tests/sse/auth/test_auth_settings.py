"""From settings to keys: refusals at the start, and rotation while serving."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import sse
from sse.auth.authenticator import Authenticator
from sse.auth.decision import AccessDenied, BadAuthSetting
from sse.auth.keyfile import CHECK_INTERVAL
from sse.runtime.redaction import redact
from sse.settings import Settings

from .fakes import (
    OTHER_KEY,
    OTHER_SECRET,
    PUBLISH_KEY,
    SECRET,
    FakeSettings,
    bearer,
    claims,
    hs256,
    jwk,
    jwks,
    public_pem,
    request,
    rs256,
    rsa_key,
)

AUTO = FakeSettings()
KEY = FakeSettings(sse_publish_key=SecretStr(PUBLISH_KEY))
TOKEN = FakeSettings(sse_jwt_key=SecretStr(SECRET))
NONE = FakeSettings(sse_auth="none")


def authenticator(settings: Any, *, loopback: bool = False) -> Authenticator:
    return Authenticator(settings, loopback_only=lambda: loopback)


def refused(checker: Authenticator, credential: str) -> bool:
    """True if publishing with this credential gets 401."""
    try:
        checker.may_publish(request(**bearer(credential)), ["a"])
    except AccessDenied as denied:
        assert denied.status == 401
        return True
    return False


# --- Files and rotation -------------------------------------------------------------------------------------


def test_publish_keys_from_a_file_and_from_the_setting_are_both_valid(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(OTHER_KEY + "\n")
    checker = authenticator(FakeSettings(sse_publish_key=SecretStr(PUBLISH_KEY), sse_publish_key_file=file))
    assert not refused(checker, PUBLISH_KEY) and not refused(checker, OTHER_KEY)


class Uptime:
    """The clock of the key files."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float = CHECK_INTERVAL) -> None:
        self.now += seconds


def test_a_key_set_rotates_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    old, new = (
        hs256(claims(publish=["a"]), secret, kid=kid) for secret, kid in ((SECRET, "1"), (OTHER_SECRET, "2"))
    )
    file.write_text(jwks(jwk(SECRET, kid="1")))
    uptime = Uptime()
    settings = FakeSettings(sse_jwks_file=file)
    checker = Authenticator(settings, loopback_only=lambda: False, monotonic=uptime)

    assert (refused(checker, old), refused(checker, new)) == (False, True)
    file.write_text(jwks(jwk(SECRET, kid="1"), jwk(OTHER_SECRET, kid="2")))
    uptime.pass_by()
    assert (refused(checker, old), refused(checker, new)) == (False, False)
    file.write_text(jwks(jwk(OTHER_SECRET, kid="2")))
    uptime.pass_by()
    assert (refused(checker, old), refused(checker, new)) == (True, False), "taken out is revoked"


@pytest.mark.parametrize("static", [True, False], ids=["SSE_PUBLISH_KEY_FILE", "SSE_JWT_KEY_FILE"])
def test_the_old_key_of_a_single_key_file_stays_valid_for_some_time(static: bool, tmp_path: Path) -> None:
    file = tmp_path / "key"
    first, second = (PUBLISH_KEY, OTHER_KEY) if static else (SECRET, OTHER_SECRET)
    body = claims(publish=["a"])
    old, new = (first, second) if static else (hs256(body, first), hs256(body, second))
    file.write_text(first)
    uptime = Uptime()
    settings = FakeSettings(sse_publish_key_file=file) if static else FakeSettings(sse_jwt_key_file=file)
    checker = Authenticator(settings, loopback_only=lambda: False, monotonic=uptime)
    file.write_text(second)
    uptime.pass_by()
    assert (refused(checker, old), refused(checker, new)) == (False, False)
    uptime.pass_by(301)
    assert (refused(checker, old), refused(checker, new)) == (True, False)


# --- Settings that change -----------------------------------------------------------------------------------

A, B, C = SecretStr(PUBLISH_KEY), SecretStr(OTHER_KEY), SecretStr("a-third-key-of-its-own")
S, T = SecretStr(SECRET), SecretStr(OTHER_SECRET)


def changed(before: Authenticator, uptime: Uptime, **settings: Any) -> Authenticator:
    return Authenticator(
        FakeSettings(**settings), loopback_only=lambda: False, monotonic=uptime, before=before
    )


def good(checker: Authenticator) -> str:
    """Return which of the three keys, and of the two secrets' tokens, may publish."""
    body = claims(publish=["a"])
    shown = {
        "A": PUBLISH_KEY,
        "B": OTHER_KEY,
        "C": C.get_secret_value(),
        "S": hs256(body, SECRET),
        "T": hs256(body, OTHER_SECRET),
    }
    return "".join(name for name, credential in shown.items() if not refused(checker, credential))


@pytest.mark.parametrize(
    ("settings", "now", "later"),
    [
        pytest.param([{"sse_publish_key": A}, {"sse_publish_key": B}], "AB", "B", id="exchanged"),
        pytest.param(
            [{"sse_publish_key": A}, {"sse_publish_key": B}, {"sse_publish_key": C}], "ABC", "C", id="twice"
        ),
        pytest.param(
            [{"sse_publish_key": A}, {"sse_publish_key": B}, {"sse_publish_key": B, "sse_cors_origins": ("*",)}],
            "AB",
            "B",
            id="something else has changed",
        ),
        pytest.param([{"sse_publish_key": A}, {"sse_jwt_key": S}], "S", "S", id="taken out"),
        pytest.param(
            [{"sse_publish_key": A}, {"sse_publish_key": B}, {}, {"sse_publish_key": C}], "C", "C", id="all taken out"
        ),
        pytest.param([{"sse_jwt_key": S}, {"sse_jwt_key": T}], "ST", "T", id="of tokens"),
        pytest.param(
            [{"sse_jwt_key": S, "sse_publish_key": A}, {"sse_jwt_key": T, "sse_publish_key": A}],
            "AST",
            "AT",
            id="one of two",
        ),
    ],
)
def test_a_replaced_key_stays_valid_for_some_time_and_a_removed_one_does_not(
    settings: list[dict[str, Any]], now: str, later: str
) -> None:
    uptime = Uptime()
    checker = Authenticator(FakeSettings(**settings[0]), loopback_only=lambda: False, monotonic=uptime)
    for step in settings[1:]:
        checker = changed(checker, uptime, **step)
    assert good(checker) == now
    uptime.pass_by(301)
    assert good(checker) == later


def test_key_files_keep_their_state_while_settings_change(tmp_path: Path) -> None:
    file, keys = tmp_path / "key", tmp_path / "jwks.json"
    file.write_text(PUBLISH_KEY)
    keys.write_text(jwks(jwk(SECRET)))
    files = {"sse_publish_key_file": file, "sse_jwks_file": keys}
    uptime = Uptime()
    checker = Authenticator(FakeSettings(**files), loopback_only=lambda: False, monotonic=uptime)
    file.write_text(OTHER_KEY)
    uptime.pass_by()
    assert good(checker) == "ABS"
    uptime.pass_by(200)
    checker = changed(checker, uptime, **files, sse_cors_origins=("*",))
    assert good(checker) == "ABS", "the earlier key of the file keeps its time"
    keys.write_text(jwks(jwk(OTHER_SECRET)))
    uptime.pass_by()
    assert good(checker) == "ABT"
    uptime.pass_by(100)
    assert good(checker) == "BT", "and no more than that"


# --- Settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        pytest.param(
            {"sse_auth": "none", "sse_publish_key": SecretStr(PUBLISH_KEY)}, "SSE_AUTH", id="none and a key"
        ),
        pytest.param(
            {"sse_auth": "none", "sse_jwt_key": SecretStr(SECRET)}, "SSE_AUTH", id="none and tokens"
        ),
        pytest.param({"sse_auth": "open"}, "SSE_AUTH", id="an unknown mode"),
        pytest.param({"sse_publish_key": SecretStr("too-short-key")}, "SSE_PUBLISH_KEY", id="a short key"),
        pytest.param({"sse_publish_key": SecretStr("")}, "SSE_PUBLISH_KEY", id="an empty key"),
        pytest.param(
            {"sse_publish_key": SecretStr("with blanks in between")}, "SSE_PUBLISH_KEY", id="blanks"
        ),
        pytest.param({"sse_publish_key_file": Path("/nowhere")}, "SSE_PUBLISH_KEY_FILE", id="no file"),
        pytest.param({"sse_jwt_key": SecretStr("s" * 31)}, "SSE_JWT_KEY", id="a secret of 248 bits"),
        pytest.param({"sse_jwt_key": SecretStr("")}, "SSE_JWT_KEY", id="an empty secret"),
        pytest.param(
            {"sse_jwt_key": SecretStr(public_pem(rsa_key()))}, "SSE_JWT_KEY", id="RSA where HS256 is allowed"
        ),
        pytest.param(
            {"sse_jwt_key": SecretStr(SECRET), "sse_jwt_algorithms": ("RS256",)},
            "SSE_JWT_KEY",
            id="the other way",
        ),
        pytest.param(
            {"sse_jwt_key": SecretStr(SECRET), "sse_jwt_algorithms": ("HS256", "none")},
            "SSE_JWT_ALGORITHMS",
            id="none",
        ),
        pytest.param(
            {"sse_jwt_key": SecretStr(SECRET), "sse_jwt_algorithms": ()},
            "SSE_JWT_ALGORITHMS",
            id="no algorithm",
        ),
        pytest.param({"sse_jwt_key_file": Path("/nowhere")}, "SSE_JWT_KEY_FILE", id="no key file"),
        pytest.param({"sse_jwks_file": Path("/dev/null")}, "SSE_JWKS_FILE", id="no key set"),
        pytest.param({"sse_cors_origins": ("app.example",)}, "SSE_CORS_ORIGINS", id="no origin"),
        pytest.param({"sse_trusted_proxies": ("proxy",)}, "SSE_TRUSTED_PROXIES", id="no network"),
        pytest.param({"sse_public_channels": ("a*b",)}, "SSE_PUBLIC_CHANNELS", id="no pattern"),
    ],
)
def test_unsafe_settings_are_refused(settings: dict[str, Any], setting: str) -> None:
    with pytest.raises(BadAuthSetting) as error:
        authenticator(FakeSettings(**settings))
    assert error.value.setting == setting
    for value in settings.values():
        shown = value.get_secret_value() if isinstance(value, SecretStr) else ""
        assert not shown or shown not in str(error.value)


def test_public_keys_and_issuers_come_from_the_settings() -> None:
    settings = FakeSettings(
        sse_jwt_key=SecretStr(public_pem(rsa_key())), sse_jwt_algorithms=("RS256",), sse_jwt_issuer="us"
    )
    checker = authenticator(settings)
    assert not refused(checker, rs256(claims(publish=["a"], iss="us"), rsa_key()))
    assert refused(checker, rs256(claims(publish=["a"]), rsa_key()))
    assert refused(checker, hs256(claims(publish=["a"], iss="us"), public_pem(rsa_key())))


def test_the_real_settings_work() -> None:
    settings = Settings.from_mapping(
        {"SSE_PUBLISH_KEY": PUBLISH_KEY, "SSE_JWT_KEY": SECRET, "SSE_TRUSTED_PROXIES": "10.0.0.0/8"}
    )
    checker = authenticator(settings)
    assert not refused(checker, PUBLISH_KEY) and not refused(checker, hs256(claims(publish=["a"])))
    assert checker.client_address(request(peer="10.1.1.1", X_Forwarded_For="203.0.113.9").environ) == "203.0.113.9"


@pytest.mark.parametrize(
    ("settings", "loopback", "words"),
    [
        (AUTO, True, ["from this machine", "reading needs nothing"]),
        (AUTO, False, ["closed", "SSE_PUBLISH_KEY"]),
        (KEY, False, ["the publish key"]),
        (TOKEN, False, ["SSE_PUBLIC_CHANNELS"]),
        (NONE, False, ["everybody"]),
    ],
)
def test_the_startup_line_says_who_may_publish_and_read(settings: FakeSettings, loopback: bool, words: list[str]) -> None:
    line = authenticator(settings, loopback=loopback).startup_line()
    assert "\n" not in line and all(word in line for word in words) and redact(line) == line


def test_without_tokens_no_cryptography_is_imported() -> None:
    script = (
        "import sys; from sse.auth.authenticator import Authenticator; from sse.settings import Settings\n"
        f"settings = Settings.from_mapping({{'SSE_PUBLISH_KEY': '{PUBLISH_KEY}'}})\n"
        "Authenticator(settings, loopback_only=lambda: False)\n"
        "sys.exit('jwt' in sys.modules or 'cryptography' in sys.modules)"
    )
    root = Path(sse.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, timeout=60)
    assert done.returncode == 0, "9 MB in each worker"
