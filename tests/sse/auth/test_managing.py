"""Who may erase, list and revoke: every mode with every kind of credential."""

from typing import Any

import pytest
from pydantic import SecretStr

from sse.auth.authenticator import Authenticator
from sse.auth.decision import AccessDenied, Grant

from .fakes import OTHER_KEY, PUBLISH_KEY, SECRET, FakeSettings, bearer, claims, hs256, request

KEY = FakeSettings(sse_publish_key=SecretStr(PUBLISH_KEY))
TOKEN = FakeSettings(sse_jwt_key=SecretStr(SECRET), sse_public_channels=("news",))
BOTH = FakeSettings(sse_publish_key=SecretStr(PUBLISH_KEY), sse_jwt_key=SecretStr(SECRET))
NONE = FakeSettings(sse_auth="none")
AUTO = FakeSettings()


def managing(*patterns: str, **more: Any) -> dict[str, str]:
    lists = {"publish": ["*"], "subscribe": ["*"], "manage": list(patterns)}
    return bearer(hs256({**claims(), "sse": lists, **more}))


def status_of(
    settings: FakeSettings, headers: dict[str, str], channels: list[str], *, loopback: bool = False, method: str = "DELETE"
) -> int:
    checker = Authenticator(settings, loopback_only=lambda: loopback)
    try:
        checker.may_manage(request(method, **headers), channels)
    except AccessDenied as refusal:
        return refusal.status
    return 200


CREDENTIALS: list[dict[str, str]] = [{}, bearer(OTHER_KEY), bearer(PUBLISH_KEY), managing("orders", "a:*"), managing("b")]


@pytest.mark.parametrize(
    ("settings", "loopback", "answers"),
    [
        #                         nobody, wrong, key, token, other
        pytest.param(NONE, False, [200, 200, 200, 200, 200], id="SSE_AUTH=none"),
        pytest.param(AUTO, True, [200, 200, 200, 200, 200], id="nothing set, on loopback"),
        pytest.param(AUTO, False, [403, 403, 403, 403, 403], id="nothing set, reachable"),
        pytest.param(KEY, True, [401, 401, 200, 401, 401], id="a key"),
        pytest.param(TOKEN, True, [401, 401, 401, 200, 403], id="tokens"),
        pytest.param(BOTH, False, [401, 401, 200, 200, 403], id="both"),
    ],
)
def test_managing_by_mode_and_credential(settings: FakeSettings, loopback: bool, answers: list[int]) -> None:
    found = [status_of(settings, headers, ["orders", "a:1"], loopback=loopback) for headers in CREDENTIALS]
    assert found == answers


@pytest.mark.parametrize(
    ("granted", "channels", "status"),
    [
        (["orders:*"], ["orders:eu:*"], 200),
        (["orders:eu:*"], ["orders:*"], 403),
        (["orders"], ["orders*"], 403),
        (["orders:1", "orders:2"], ["orders:*"], 403),
        (["*"], ["*"], 200),
        (["*"], ["_control"], 403),
        (["*"], ["_*"], 403),
        ([], ["orders"], 403),
        ([], [], 403),
    ],
    ids=str,
)
def test_a_token_must_cover_every_name_and_pattern(granted: list[str], channels: list[str], status: int) -> None:
    assert status_of(TOKEN, managing(*granted), channels) == status


def test_a_token_to_publish_and_read_everything_manages_nothing() -> None:
    token = bearer(hs256(claims(publish=["*"], subscribe=["*"])))
    assert status_of(TOKEN, token, ["orders"]) == 403


def test_a_token_in_the_url_does_not_manage() -> None:
    token = managing("*")["Authorization"].removeprefix("Bearer ")
    with pytest.raises(AccessDenied, match="for reading only") as refused:
        Authenticator(TOKEN, loopback_only=lambda: True).may_manage(
            request("DELETE", f"/events/a?access_token={token}"), ["a"]
        )
    assert refused.value.status == 401


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("DELETE", {}, 403),
        ("DELETE", {"Origin": "https://evil.example"}, 403),
        ("DELETE", {"Origin": "http://127.0.0.1:8080"}, 200),
        ("GET", {}, 200),  # a page's own GET has no Origin, and changes nothing
    ],
)
def test_only_our_own_pages_may_change_something_by_cookie(method: str, headers: dict[str, str], status: int) -> None:
    token = managing("*")["Authorization"].removeprefix("Bearer ")
    assert status_of(TOKEN, {"Cookie": f"sse_token={token}", **headers}, ["orders"], method=method) == status


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Via": "1.1 proxy"}], ids=str)
def test_without_a_key_only_direct_local_requests_can_manage(headers: dict[str, str]) -> None:
    assert status_of(AUTO, headers, ["orders"], loopback=True) == 403


@pytest.mark.parametrize("channel", ["_control", "_stats", "_*"])
@pytest.mark.parametrize(("settings", "headers"), [(NONE, {}), (KEY, bearer(PUBLISH_KEY))], ids=["none", "key"])
def test_nobody_manages_reserved_channels(settings: FakeSettings, headers: dict[str, str], channel: str) -> None:
    assert status_of(settings, headers, ["orders", channel]) == 403


@pytest.mark.parametrize(
    ("granted", "asked", "status"),
    [
        ("orders:*", "orders:*", 200),
        ("orders:*", "orders:eu:*", 200),
        ("orders:*", "orders:1", 200),
        ("orders:eu:*", "orders:*", 403),
        ("orders:*", "orders*", 403),
        ("orders:*", "*", 403),
        ("*", "_*", 403),
    ],
)
def test_a_token_must_cover_the_whole_pattern_of_a_stream(granted: str, asked: str, status: int) -> None:
    checker = Authenticator(TOKEN, loopback_only=lambda: True)
    reader = request("GET", **bearer(hs256(claims(subscribe=[granted]))))
    if status == 200:
        checker.may_subscribe(reader, [asked])
    else:
        with pytest.raises(AccessDenied) as refused:
            checker.may_subscribe(reader, [asked])
        assert refused.value.status == status


def test_a_public_channel_does_not_make_a_pattern_public() -> None:
    settings = FakeSettings(sse_jwt_key=SecretStr(SECRET), sse_public_channels=("news", "open:*"))
    checker = Authenticator(settings, loopback_only=lambda: True)
    assert checker.may_subscribe(request("GET"), ["open:a:*", "news"]) == Grant("address:127.0.0.1", public=True)
    for pattern in ("news*", "open*", "*"):
        with pytest.raises(AccessDenied):
            checker.may_subscribe(request("GET"), [pattern])
