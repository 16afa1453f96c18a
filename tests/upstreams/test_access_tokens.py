"""Several tokens of one endpoint: used in turn, with rejected ones rested."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from lookalikes import lookalike

from hubgate.domain.calls import Embed
from hubgate.domain.endpoint import Endpoint, Source, Target, Task
from hubgate.domain.errors import Cause, HubgateError, UpstreamRefused
from hubgate.domain.secret import Secret
from hubgate.settings import Settings
from hubgate.upstreams.access_tokens import RATE_LIMITED_SECONDS, REFUSED_SECONDS, AccessTokens
from hubgate.upstreams.sources import ModelSources

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(status: int, retry_after: float | None = None) -> UpstreamRefused:
    return UpstreamRefused("no", status=status, retry_after=retry_after, cause=Cause.WRONG_TOKEN)


def taken(tokens: AccessTokens, count: int) -> list[str]:
    return [token.reveal() if (token := tokens.take()) else "" for _ in range(count)]


def test_secret_holds_one_token_per_line() -> None:
    each = Secret(" a \r\n\nb\nc").each()
    assert [token.reveal() for token in each] == ["a", "b", "c"]
    assert Secret("").each() == ()


def test_tokens_are_used_in_turn() -> None:
    assert taken(AccessTokens(Secret("a\nb\nc\na")), 7) == ["a", "b", "c", "a", "b", "c", "a"]


def test_no_token_is_used_when_there_is_none() -> None:
    assert AccessTokens(None).take() is None


@pytest.mark.parametrize(
    ("status", "retry_after", "rest"),
    [
        (401, None, REFUSED_SECONDS),
        (402, 7.0, REFUSED_SECONDS),
        (429, None, RATE_LIMITED_SECONDS),
        (429, 7.0, 7.0),
    ],
)
def test_rejected_token_is_rested_and_request_retried_with_another(
    status: int, retry_after: float | None, rest: float
) -> None:
    clock = Clock()
    tokens = AccessTokens(Secret("a\nb"), clock)
    error = refused(status, retry_after)
    tokens.refused(tokens.take(), error)
    assert (error.retryable, error.retry_after) == (True, 0.0)
    assert taken(tokens, 3) == ["b", "b", "b"]
    clock.now += rest
    assert sorted(taken(tokens, 2)) == ["a", "b"]


def test_when_all_tokens_rest_the_next_to_recover_is_used_without_retry() -> None:
    clock = Clock()
    tokens = AccessTokens(Secret("a\nb"), clock)
    tokens.refused(tokens.take(), refused(401))
    last = refused(429, 5.0)
    tokens.refused(tokens.take(), last)
    assert (last.retryable, last.retry_after) == (False, 5.0)
    assert taken(tokens, 1) == ["b"]


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
def test_errors_unrelated_to_the_token_do_not_rest_it(status: int) -> None:
    tokens = AccessTokens(Secret("a\nb"))
    error = refused(status)
    tokens.refused(tokens.take(), error)
    assert not error.retryable
    assert taken(tokens, 2) == ["b", "a"]


def test_single_token_never_rests() -> None:
    tokens = AccessTokens(Secret("a"))
    error = refused(401)
    tokens.refused(tokens.take(), error)
    assert not error.retryable
    assert taken(tokens, 2) == ["a", "a"]


async def test_server_receives_the_next_token(tmp_path: Path) -> None:
    sources = ModelSources(Settings(home=tmp_path, secret_key_file=tmp_path / "key"))
    token = Secret("hf_revoked\nhf_good")
    with lookalike("tei") as server:
        draft = Endpoint(name="e", task=Task.TEXT_EMBEDDING, source=Source.DEDICATED, url=server.url)
        upstream = sources.open(
            Target(replace(draft, facts=await sources.detect(Target(draft, Secret("hf_x")))), token)
        )
        server.fail("wrong-token", times=1)
        with pytest.raises(HubgateError) as caught:
            await upstream(Embed(texts=["a"]))
        for _ in range(3):
            await upstream(Embed(texts=["a"]))
        assert [asked.token for asked in server.posts] == ["hf_revoked", *["hf_good"] * 3]
    assert (caught.value.cause, caught.value.retryable) == (Cause.WRONG_TOKEN, True)
    await sources.close()
