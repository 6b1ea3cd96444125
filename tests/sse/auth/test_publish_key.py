"""The static publish key: parsed, and compared in constant time."""

import hmac

import pytest

from sse.auth.publish_key import check_publish_key, digest, matches, parse_publish_keys

from .fakes import OTHER_KEY, PUBLISH_KEY

PRESENTED = [
    pytest.param(PUBLISH_KEY, True, id="the key"),
    pytest.param(PUBLISH_KEY[:-1], False, id="too short by one"),
    pytest.param(PUBLISH_KEY + "x", False, id="too long by one"),
    pytest.param("x" + PUBLISH_KEY[1:], False, id="wrong at the beginning"),
    pytest.param(PUBLISH_KEY[:-1] + "x", False, id="wrong at the end"),
    pytest.param(PUBLISH_KEY.upper(), False, id="wrong case"),
    pytest.param("", False, id="empty"),
    pytest.param("x" * 10_000, False, id="very long"),
]


@pytest.mark.parametrize(("presented", "matching"), PRESENTED)
def test_every_key_is_compared_by_digest_with_compare_digest(
    presented: str, matching: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []

    def spy(left: bytes, right: bytes) -> bool:
        compared.append((len(left), len(right)))
        return real(left, right)

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", spy)
    keys = [digest(OTHER_KEY), digest(PUBLISH_KEY), digest("a third key, not in use")]
    assert matches(presented, keys) is matching
    assert compared == [(32, 32)] * 3, "all keys are compared, even after a match, and always with equal lengths"


def test_compare_digest_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hmac, "compare_digest", lambda left, right: False)
    assert not matches(PUBLISH_KEY, [digest(PUBLISH_KEY)])
    monkeypatch.setattr(hmac, "compare_digest", lambda left, right: True)
    assert matches("anything", [digest(PUBLISH_KEY)])


def test_without_keys_nothing_matches() -> None:
    assert not matches("", []) and not matches(PUBLISH_KEY, [])


def test_a_file_has_one_key_per_line() -> None:
    content = f"{PUBLISH_KEY}\r\n\n  {OTHER_KEY}  \n".encode()
    assert parse_publish_keys(content) == [digest(PUBLISH_KEY), digest(OTHER_KEY)]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n \n", id="blank lines only"),
        pytest.param(b"short\n", id="a short key"),
        pytest.param(PUBLISH_KEY.encode() + b"\nsecret-line with blanks\n", id="a bad line after a good one"),
        pytest.param(b"secret-\xff\xfe-bytes-not-text", id="bytes that are no text"),
        pytest.param(b"secret=in=the=middle", id="an equals sign inside"),
    ],
)
def test_a_file_with_an_invalid_key_or_none_is_refused_and_not_quoted(content: bytes) -> None:
    with pytest.raises(ValueError) as refused:
        parse_publish_keys(content)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("key", ["a" * 16, "aGVhZHdhdGVyLWtleQ==", "A-._~+/9" * 2])
def test_a_valid_key_is_returned(key: str) -> None:
    assert check_publish_key(key) == key


@pytest.mark.parametrize(
    "key", ["a" * 15, "with a blank in it", "pässwort-pässwort", "a" * 16 + "\n", "a,b" * 8]
)
def test_a_key_that_could_be_guessed_or_never_match_is_refused(key: str) -> None:
    with pytest.raises(ValueError):
        check_publish_key(key)
