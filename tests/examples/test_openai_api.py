"""examples/openai_api.py, read by the ``openai`` package."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.examples import place

# Its answer takes four seconds.
QUESTION = "why is a question of so many words not answered by all of them in turn"
ANSWER = f"You ask: {QUESTION!r}. The answer is forty-two. "
SHORT = "You ask: 'how'. The answer is forty-two. "


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[place.Pods]:
    with place.two("openai_api", tmp_path_factory.mktemp("pods")) as running:
        yield running


@pytest.fixture
def client(pods: place.Pods) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{pods.url}/v1", api_key="none", timeout=20) as made:
        yield made


def ask(client: openai.OpenAI, question: str, key: str) -> Any:
    return client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": question}],
        stream=True,
        extra_headers={"Idempotency-Key": key},
    )


def text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_the_openai_package_reads_an_answer_as_it_is_made(client: openai.OpenAI) -> None:
    chunks, arrived = [], []
    for chunk in ask(client, "how", "as it is made"):
        chunks.append(chunk)
        arrived.append(time.monotonic())
    assert arrived[-1] - arrived[2] > 0.2, "it came at once, not as it was made"
    assert text(chunks) == SHORT
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 8 + ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_same_key_gets_the_same_answer_from_its_beginning(client: openai.OpenAI) -> None:
    first = ask(client, "how", "the same")
    assert next(first).choices[0].delta.role == "assistant"
    again = list(ask(client, "how", "the same"))
    assert text(again) == SHORT
    assert [next(first) for _ in again[1:]] == again[1:], "with the moment of its creation"


def test_a_stream_that_breaks_off_is_continued_with_the_same_key_on_another_pod(
    client: openai.OpenAI, pods: place.Pods
) -> None:
    chunks: list[Any] = []
    with pods.leaving() as leave:
        for chunk in ask(client, QUESTION, "continued"):
            chunks.append(chunk)
            if len(chunks) == 3:
                leave()
        assert chunks[-1].choices[0].finish_reason is None, "the drain came too late"
        rest = list(ask(client, QUESTION, "continued"))
    assert rest[: len(chunks)] == chunks
    assert text(rest) == ANSWER and rest[-1].choices[0].finish_reason == "stop"


def test_a_stop_ends_the_stream_without_a_finish_reason(client: openai.OpenAI, pods: place.Pods) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="any", messages=[{"role": "user", "content": QUESTION}], stream=True
    )
    chunks = []
    for chunk in raw.parse():
        chunks.append(chunk)
        if len(chunks) == 2:
            answer = pods.servers[0].request("POST", f"/runs/{raw.headers['X-Run']}/stop")
            assert answer.status == 202
    assert {chunk.choices[0].finish_reason for chunk in chunks} == {None}
    assert text(chunks) != ANSWER


def test_what_is_not_streamed_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="only streams"):
        client.chat.completions.create(model="any", messages=[{"role": "user", "content": "why"}])
