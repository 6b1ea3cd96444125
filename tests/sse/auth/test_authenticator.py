"""Who may publish and read: every mode with every kind of credential."""

import time
from typing import Any

import pytest
from pydantic import SecretStr

from sse.auth.authenticator import Authenticator
from sse.auth.decision import AccessDenied, Grant
from sse.auth.policy import Publishing

from .fakes import (
    OTHER_KEY,
    OTHER_SECRET,
    PUBLISH_KEY,
    SECRET,
    FakeSettings,
    bearer,
    claims,
    hs256,
    request,
)

KEY = FakeSettings(sse_publish_key=SecretStr(PUBLISH_KEY))
TOKEN = FakeSettings(sse_jwt_key=SecretStr(SECRET), sse_public_channels=("news", "open:*"))
BOTH = FakeSettings(sse_publish_key=SecretStr(PUBLISH_KEY), sse_jwt_key=SecretStr(SECRET))
NONE = FakeSettings(sse_auth="none")
AUTO = FakeSettings()


def authenticator(settings: Any, *, loopback: bool = False) -> Authenticator:
    return Authenticator(settings, loopback_only=lambda: loopback)


def denied(check: Any, *args: Any) -> AccessDenied:
    with pytest.raises(AccessDenied) as raised:
        check(*args)
    return raised.value


def token(*publish: str, read: tuple[str, ...] = (), **more: Any) -> str:
    return hs256(claims(publish=publish, subscribe=read, **more))


# --- Publishing, mode by mode -------------------------------------------------------------------------------

NOBODY: dict[str, str] = {}
WRONG_KEY = bearer(OTHER_KEY)
RIGHT_KEY = bearer(PUBLISH_KEY)
RIGHT_TOKEN = bearer(token("orders", "a:*"))
OTHER_CHANNELS = bearer(token("else"))
READ_ONLY = bearer(token(read=("*",)))
FORGED = bearer(hs256(claims(publish=["*"]), OTHER_SECRET))

CASES = [NOBODY, WRONG_KEY, RIGHT_KEY, RIGHT_TOKEN, OTHER_CHANNELS, READ_ONLY, FORGED]


@pytest.mark.parametrize(
    ("settings", "loopback", "answers"),
    [
        #                         nobody, wrong, key, token, other, read-only, forged
        pytest.param(NONE, False, [200, 200, 200, 200, 200, 200, 200], id="SSE_AUTH=none"),
        pytest.param(AUTO, True, [200, 200, 200, 200, 200, 200, 200], id="nothing set, on loopback"),
        pytest.param(AUTO, False, [403, 403, 403, 403, 403, 403, 403], id="nothing set, reachable"),
        pytest.param(KEY, False, [401, 401, 200, 401, 401, 401, 401], id="a key"),
        pytest.param(KEY, True, [401, 401, 200, 401, 401, 401, 401], id="a key, on loopback too"),
        pytest.param(TOKEN, False, [401, 401, 401, 200, 403, 403, 401], id="tokens"),
        pytest.param(TOKEN, True, [401, 401, 401, 200, 403, 403, 401], id="tokens, on loopback too"),
        pytest.param(BOTH, False, [401, 401, 200, 200, 403, 403, 401], id="both"),
    ],
)
def test_publishing_by_mode_and_credential(
    settings: FakeSettings, loopback: bool, answers: list[int]
) -> None:
    checker = authenticator(settings, loopback=loopback)
    for headers, expected in zip(CASES, answers, strict=True):
        for channels in (["orders"], ["orders", "a:1"]):
            try:
                checker.may_publish(request(**headers), channels)
                status = 200
            except AccessDenied as refusal:
                status = refusal.status
            assert status == expected, (headers, channels)


def test_the_token_must_cover_all_channels_of_a_batch() -> None:
    checker = authenticator(TOKEN)
    refusal = denied(checker.may_publish, request(**RIGHT_TOKEN), ["orders", "a:1", "b:1"])
    assert refusal.status == 403 and "b:1" in refusal.detail
    assert 'error="insufficient_scope"' in refusal.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        (TOKEN, RIGHT_TOKEN, 200),
        (TOKEN, READ_ONLY, 403),
        (TOKEN, NOBODY, 401),
        (KEY, RIGHT_KEY, 200),
        (KEY, WRONG_KEY, 401),
        (AUTO, NOBODY, 403),
    ],
)
def test_a_client_that_may_publish_nothing_is_refused_before_its_body_is_read(
    settings: FakeSettings, headers: dict[str, str], status: int
) -> None:
    checker = authenticator(settings)
    if status == 200:
        checker.may_publish(request(**headers), ())
    else:
        assert denied(checker.may_publish, request(**headers), ()).status == status


@pytest.mark.parametrize(
    ("settings", "loopback", "headers"),
    [
        (NONE, False, NOBODY),
        (AUTO, True, NOBODY),
        (KEY, False, RIGHT_KEY),
        (TOKEN, False, bearer(token("*"))),
    ],
    ids=["none", "local", "key", "a star"],
)
@pytest.mark.parametrize("channel", ["_canary", "_internal"])
def test_nobody_can_publish_to_reserved_channels_by_default(
    settings: FakeSettings, loopback: bool, headers: dict[str, str], channel: str
) -> None:
    checker = authenticator(settings, loopback=loopback)
    assert denied(checker.may_publish, request(**headers), ["orders", channel]).status == 403


def test_a_token_that_spells_the_underscore_can_publish_to_a_reserved_channel() -> None:
    authenticator(TOKEN).may_publish(request(**bearer(token("_internal"))), ["_internal"])


def test_a_refusal_does_not_quote_an_invalid_channel() -> None:
    refusal = denied(authenticator(TOKEN).may_publish, request(**RIGHT_TOKEN), ['<b>"\r\nX: y'])
    assert "<b>" not in refusal.detail and "\n" not in "".join(refusal.headers.values())


# --- Local publishing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("127.0.0.1", {"Origin": "https://evil.example"}),
        ("127.0.0.1", {"Host": "evil.example:8080"}),
        ("127.0.0.1", {"Sec-Fetch-Site": "cross-site"}),
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.9"}),
        ("127.0.0.1", {"Forwarded": "for=203.0.113.9"}),
        ("127.0.0.1", {"Via": "1.1 proxy"}),
        ("203.0.113.9", {}),
    ],
    ids=str,
)
def test_without_a_key_only_direct_local_requests_can_publish(peer: str, headers: dict[str, str]) -> None:
    refusal = denied(
        authenticator(AUTO, loopback=True).may_publish, request(peer=peer, **headers), ["orders"]
    )
    assert refusal.status == 403 and "WWW-Authenticate" not in refusal.headers
    assert "this machine" in refusal.detail and "evil" not in refusal.detail


def test_closed_publishing_names_the_settings_that_open_it() -> None:
    detail = denied(authenticator(AUTO).may_publish, request(), ["orders"]).detail
    for setting in ("SSE_PUBLISH_KEY", "SSE_JWT_KEY", "SSE_JWKS_FILE", "SSE_JWT_ALGORITHMS", "SSE_AUTH=none"):
        assert setting in detail


def test_each_publish_asks_for_the_listening_addresses() -> None:
    answers = iter([False, True, False])
    checker = Authenticator(AUTO, loopback_only=lambda: next(answers))
    assert [checker.publishing() for _ in range(3)] == [
        Publishing.CLOSED,
        Publishing.LOCAL,
        Publishing.CLOSED,
    ]


def test_the_listening_addresses_are_not_asked_for_if_they_do_not_matter() -> None:
    def never() -> bool:
        raise AssertionError

    for settings in (KEY, TOKEN, BOTH, NONE):
        Authenticator(settings, loopback_only=never).publishing()
    Authenticator(AUTO, loopback_only=never).may_subscribe(request("GET"), ["orders"])


# --- Cookies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 403, id="no Origin"),
        pytest.param({"Origin": "https://evil.example"}, 403, id="a foreign page"),
        pytest.param({"Origin": "null"}, 403, id="a sandboxed page"),
        pytest.param({"Origin": "http://127.0.0.1:8080"}, 200, id="our own page"),
        pytest.param({"Origin": "https://app.example"}, 200, id="an allowed page"),
        pytest.param({"Origin": "https://app.example.evil.example"}, 403, id="one that begins alike"),
    ],
)
@pytest.mark.parametrize("credential", [PUBLISH_KEY, token("orders")], ids=["key", "token"])
def test_publishing_by_cookie_needs_an_allowed_origin(
    headers: dict[str, str], status: int, credential: str
) -> None:
    settings = FakeSettings(
        sse_publish_key=SecretStr(PUBLISH_KEY),
        sse_jwt_key=SecretStr(SECRET),
        sse_cors_origins=("https://app.example", "*"),
    )
    asked = request(Cookie=f"sse_token={credential}", **headers)
    if status == 200:
        authenticator(settings).may_publish(asked, ["orders"])
    else:
        refusal = denied(authenticator(settings).may_publish, asked, ["orders"])
        assert refusal.status == status and "SSE_CORS_ORIGINS" in refusal.detail


def test_reading_by_cookie_needs_no_origin() -> None:
    asked = request("GET", Cookie=f"sse_token={token(read=('orders',))}")
    authenticator(TOKEN).may_subscribe(asked, ["orders"])


def test_an_origin_behind_a_proxy_is_compared_with_the_forwarded_host_if_the_proxy_is_trusted() -> None:
    headers = {
        "Origin": "https://a.example",
        "X-Forwarded-Host": "a.example",
        "Cookie": f"sse_token={token('orders')}",
    }
    trusting = FakeSettings(sse_jwt_key=SecretStr(SECRET), sse_trusted_proxies=("10.0.0.0/8",))
    authenticator(trusting).may_publish(request(peer="10.1.1.1", **headers), ["orders"])
    denied(authenticator(trusting).may_publish, request(peer="203.0.113.9", **headers), ["orders"])
    denied(authenticator(TOKEN).may_publish, request(peer="10.1.1.1", **headers), ["orders"])


# --- Reading ------------------------------------------------------------------------------------------------

READER = bearer(token(read=("orders", "a:*")))


@pytest.mark.parametrize("settings", [AUTO, KEY, NONE], ids=["nothing set", "a key", "none"])
@pytest.mark.parametrize(
    "headers", [NOBODY, WRONG_KEY, FORGED], ids=["nobody", "a wrong key", "a forged token"]
)
def test_without_tokens_everybody_reads(settings: FakeSettings, headers: dict[str, str]) -> None:
    grant = authenticator(settings).may_subscribe(request("GET", **headers), ["orders", "_canary"])
    assert grant.expires_at is None
    authenticator(settings).may_subscribe(request("GET", **headers), ["_stats"])
    refusal = denied(authenticator(settings).may_subscribe, request("GET"), ["orders", "_internal"])
    assert refusal.status == 403


@pytest.mark.parametrize(
    ("settings", "headers", "channels", "status"),
    [
        pytest.param(TOKEN, NOBODY, ["news", "open:1", "_canary"], 200, id="public channels and the canary"),
        pytest.param(TOKEN, FORGED, ["news"], 200, id="a bad token does no harm where none is needed"),
        pytest.param(TOKEN, NOBODY, ["news", "orders"], 401, id="one that is not public"),
        pytest.param(TOKEN, NOBODY, ["_internal"], 401, id="reserved"),
        pytest.param(TOKEN, NOBODY, ["_stats"], 401, id="the statistics are not public then"),
        pytest.param(TOKEN, bearer(token(read=("*",))), ["_stats"], 403, id="a star and the statistics"),
        pytest.param(TOKEN, bearer(token(read=("_stats",))), ["_stats"], 200, id="the statistics by name"),
        pytest.param(TOKEN, NOBODY, [], 401, id="nothing at all"),
        pytest.param(TOKEN, READER, ["orders", "a:1", "news", "_canary"], 200, id="covered and public"),
        pytest.param(TOKEN, READER, ["orders", "b"], 403, id="one not covered"),
        pytest.param(TOKEN, bearer(token("orders")), ["orders"], 403, id="a token for publishing only"),
        pytest.param(
            TOKEN, bearer(token(read=("*",))), ["_internal"], 403, id="a star and a reserved channel"
        ),
        pytest.param(TOKEN, bearer(token(read=("_*",))), ["_internal"], 200, id="an underscore and a star"),
        pytest.param(TOKEN, RIGHT_KEY, ["orders"], 401, id="a key where there are none"),
        pytest.param(BOTH, RIGHT_KEY, ["orders"], 403, id="the publish key does not read"),
        pytest.param(BOTH, READER, ["orders"], 200, id="a token beside a key"),
        pytest.param(
            BOTH, NOBODY, ["orders"], 401, id="a key alone makes reading public, with tokens it is not"
        ),
    ],
)
def test_with_tokens_reading_needs_one(
    settings: FakeSettings, headers: dict[str, str], channels: list[str], status: int
) -> None:
    checker = authenticator(settings)
    if status == 200:
        checker.may_subscribe(request("GET", **headers), channels)
    else:
        assert denied(checker.may_subscribe, request("GET", **headers), channels).status == status


@pytest.mark.parametrize("way", ["header", "cookie", "query"])
def test_a_token_can_be_sent_in_three_ways(way: str) -> None:
    good = token(read=("orders",))
    headers = {"header": bearer(good), "cookie": {"Cookie": f"sse_token={good}"}, "query": {}}[way]
    path = f"/events/orders?access_token={good}" if way == "query" else "/events/orders"
    authenticator(TOKEN).may_subscribe(request("GET", path, **headers), ["orders"])


def test_two_different_tokens_are_refused() -> None:
    asked = request(
        "GET", f"/events/orders?access_token={token(read=('orders',))}", **bearer(token(read=("a",)))
    )
    refusal = denied(authenticator(TOKEN).may_subscribe, asked, ["orders"])
    assert refusal.status == 401 and 'error="invalid_request"' in refusal.headers["WWW-Authenticate"]


# --- Grants -------------------------------------------------------------------------------------------------


def test_a_grant_has_subject_and_end() -> None:
    until = int(time.time()) + 77
    asked = request("GET", **bearer(token(read=("orders",), exp=until, sub="anna")))
    assert authenticator(TOKEN).may_subscribe(asked, ["orders"]) == Grant("token:anna", until, "anna")
    assert authenticator(KEY).may_publish(request(**RIGHT_KEY), ["a"]) == Grant("publish-key", None)
    assert authenticator(NONE).may_publish(request(peer="203.0.113.9"), ["a"]) == Grant(
        "address:203.0.113.9", None
    )


def test_a_public_stream_does_not_end_with_a_token_that_it_did_not_need() -> None:
    assert authenticator(TOKEN).may_subscribe(request("GET", **READER), ["news"]).expires_at is None


def test_a_token_that_expires_between_two_requests_is_refused() -> None:
    now = [time.time()]
    checker = Authenticator(TOKEN, loopback_only=lambda: False, clock=lambda: now[0])
    asked = request("GET", **bearer(token(read=("orders",), ttl=100)))
    checker.may_subscribe(asked, ["orders"])
    now[0] += 101
    assert "expired" in denied(checker.may_subscribe, asked, ["orders"]).detail


def test_subjects_cannot_be_mistaken_for_each_other_or_forge_log_lines() -> None:
    checker = authenticator(BOTH)

    def subject(**more: Any) -> str:
        return checker.may_publish(request(**bearer(token("a", **more))), ["a"]).subject

    assert subject(sub="publish-key") != "publish-key"
    assert not subject(sub="address:1.2.3.4").startswith("address:")
    assert "\n" not in subject(sub="x\nforged line")
    assert len(subject(sub="x" * 5000)) < 200
    assert subject() != subject(jti="another"), "tokens without a subject count one by one"
    assert PUBLISH_KEY not in checker.may_publish(request(**RIGHT_KEY), ["a"]).subject


def test_anonymous_clients_behind_a_trusted_proxy_have_different_subjects() -> None:
    checker = authenticator(FakeSettings(sse_trusted_proxies=("10.0.0.0/8",)))
    asked = request("GET", peer="10.1.1.1", **{"X-Forwarded-For": "2001:db8:1:2:3::4"})
    assert checker.may_subscribe(asked, ["a"]).subject == "address:2001:db8:1:2::/64"
    assert checker.client_address(asked.environ) == "2001:db8:1:2:3::4"
