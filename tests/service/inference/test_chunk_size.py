"""The chunk size that fits a model, and the warning when an endpoint's size does not."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import lookalike

from hubgate.core.chunking import count_words
from hubgate.domain.calls import Embed, Encoding, Token, Tokenize, Tokens, Vectors
from hubgate.domain.chunking import DEFAULT_CHUNKING, ChunkFit, ChunkingSettings
from hubgate.domain.endpoint import Endpoint, Facts, InputType, Source, Task
from hubgate.domain.errors import InvalidRequest, UpstreamUnreachable
from hubgate.service.inference.chunk_size import blind_warning, fitted, size_warning
from hubgate.service.inference.samples import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from running_gateway import RunningGateway

    from hubgate.domain.calls import Call, Result

NAME = "all-minilm-l6-v2"
LIMIT = 202
PREFIXES = {InputType.SEARCH: "one two three: ", InputType.INGEST: "one: "}


def endpoint(limit: int | None = LIMIT, **facts: Any) -> Endpoint:
    facts = {"max_input_tokens": limit, **facts}
    return Endpoint(
        name="x",
        task=Task.TEXT_EMBEDDING,
        source=Source.FAKE,
        chunking=DEFAULT_CHUNKING,
        facts=Facts(**facts),
    )


def tokens_of(text: str) -> int:
    """Two special ones, and one for every four characters begun, in every word."""
    return 2 + sum(-(-len(word) // 4) for word in text.split())


@dataclass
class Model:
    """Answers as its fields say."""

    tokenizes: bool = True
    exact: bool = True
    failure: Exception | None = None
    hangs: bool = False
    most: int = 10**9
    calls: list[Call] = field(default_factory=list)

    async def __call__(self, call: Call) -> Result:
        self.calls.append(call)
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure:
            raise self.failure
        counts = [min(self.most, tokens_of(text)) for text in call.texts]
        if isinstance(call, Embed):
            items = [b"[1]"] * len(counts)
            return Vectors(items=items, encoding=Encoding.JSON, tokens=sum(counts), exact=self.exact)
        if not self.tokenizes:
            raise InvalidRequest("it cannot")
        return Tokens([[Token(1, "t", False, 0, 1)] * count for count in counts])

    async def close(self) -> None:
        pass


async def fit_of(model: Model, asked: Endpoint | None = None) -> ChunkFit:
    fit = (await fitted(asked or endpoint(), model)).facts.chunk_fit
    assert fit is not None
    return fit


def expected(room: int) -> dict[str, int]:
    return {
        language: math.floor(0.9 * room * count_words(text) / (tokens_of(text) - 2))
        for language, text in SAMPLES.items()
    }


async def test_max_words_is_limited_by_the_language_with_most_tokens_per_word() -> None:
    words = expected(LIMIT - 2)
    fit = await fit_of(Model())
    assert fit.words == min(words.values())
    assert fit.language is not None
    assert words[fit.language] == fit.words
    assert fit.words_in_english == words["English"]


async def test_longest_prefix_and_special_tokens_reduce_the_chunk_size() -> None:
    front = tokens_of("one two three: a") - 1
    learned = endpoint(prefixes=PREFIXES)
    assert (await fit_of(Model(), learned)).words == min(expected(LIMIT - front).values())
    of_the_operator = replace(learned, prefixes={InputType.SEARCH: "one: "})
    front = tokens_of("one: a") - 1
    assert (await fit_of(Model(), of_the_operator)).words == min(expected(LIMIT - front).values())


async def test_operators_token_limit_overrides_the_models() -> None:
    fit = await fit_of(Model(), replace(endpoint(), max_input_tokens=52))
    assert fit.words == min(expected(50).values())


async def test_prefix_that_fills_the_model_leaves_room_for_zero_words() -> None:
    assert (await fit_of(Model(), endpoint(4, prefixes=PREFIXES))).words == 0


async def test_tokenize_requests_respect_max_batch_texts() -> None:
    model = Model()
    assert await fit_of(model, endpoint(max_batch_texts=4)) == await fit_of(Model())
    assert max(len(call.texts) for call in model.calls) == 4
    assert all(isinstance(call, Tokenize) for call in model.calls)


async def test_token_counter_is_used_before_the_model() -> None:
    async def counter(texts: Sequence[str], limit: int | None) -> Sequence[int] | None:
        return list(map(tokens_of, texts))

    model = Model()
    known = await fitted(endpoint(), model, counter)
    assert known.facts.chunk_fit == await fit_of(Model())
    assert model.calls == []


async def test_falls_back_to_the_model_when_the_counter_returns_none() -> None:
    async def counter(texts: Sequence[str], limit: int | None) -> Sequence[int] | None:
        return None

    known = await fitted(endpoint(), Model(), counter)
    assert known.facts.chunk_fit == await fit_of(Model())


async def test_server_without_tokenize_is_measured_by_exact_usage_one_text_at_a_time() -> None:
    model = Model(tokenizes=False)
    assert await fit_of(model) == await fit_of(Model())
    embeds = [call for call in model.calls if isinstance(call, Embed)]
    assert {len(call.texts) for call in embeds} == {1}
    assert not any(call.cached for call in embeds)


@pytest.mark.parametrize(
    "model",
    [
        Model(tokenizes=False, exact=False),
        Model(failure=UpstreamUnreachable("gone")),
    ],
    ids=["inexact", "fails"],
)
async def test_chunk_size_is_a_marked_estimate_when_tokens_cannot_be_counted(model: Model) -> None:
    known = await fitted(endpoint(), model)
    assert known.facts.chunk_fit == ChunkFit(words=90)  # (202 - 2) / 2.2
    [warning] = known.facts.warnings
    assert "max_chunk_size 90 fits, by an estimate: this server does not return token counts" in warning
    with_prefix = await fit_of(model, endpoint(prefixes=PREFIXES))
    assert with_prefix == ChunkFit(words=88)  # fifteen more bytes are five more tokens


async def test_possibly_truncated_samples_are_not_counted() -> None:
    assert await fit_of(Model(tokenizes=False, most=60), endpoint(60)) == ChunkFit(words=26)


async def test_does_not_wait_for_a_model_that_does_not_answer() -> None:
    known = await fitted(endpoint(), Model(hangs=True), within=0)
    assert known.facts.chunk_fit == ChunkFit(words=90)


async def test_sends_no_requests_when_the_limit_is_unknown() -> None:
    model, asked = Model(), endpoint(None)
    assert await fitted(asked, model) is asked
    assert model.calls == []
    assert size_warning(asked, asked.chunking) is None


async def test_no_warning_when_chunks_fit() -> None:
    words = (await fit_of(Model())).words
    fits = replace(endpoint(), chunking=ChunkingSettings(strategy="word", max_chunk_size=words, overlap=1))
    assert (await fitted(fits, Model())).facts.warnings == ()
    over = replace(fits, chunking=ChunkingSettings(strategy="word", max_chunk_size=words + 1, overlap=1))
    [warning] = (await fitted(over, Model())).facts.warnings
    assert warning.startswith(f"Chunks of {words + 1} words can be longer than the {LIMIT} tokens")
    whole = replace(fits, chunking=ChunkingSettings(strategy="none"))
    assert (await fitted(whole, Model())).facts.warnings == ()


async def test_earlier_warnings_are_kept() -> None:
    known = await fitted(endpoint(warnings=("mind the gap",)), Model())
    assert known.facts.warnings[0] == "mind the gap"
    assert len(known.facts.warnings) == 2


async def test_never_proposes_a_size_that_elasticsearch_rejects() -> None:
    known = await fitted(endpoint(22), Model())
    [warning] = known.facts.warnings
    assert "No max_chunk_size is certain to fit" in warning


async def test_no_warning_without_chunking_settings() -> None:
    known = await fitted(replace(endpoint(), chunking=None), Model())
    assert known.facts.warnings == ()
    assert known.facts.chunk_fit is not None


def test_minilm_fits_141_english_words_and_warns_of_250(local_gateway: RunningGateway) -> None:
    facts = local_gateway.request("GET", f"/api/endpoints/{NAME}").json()["facts"]
    assert facts["chunk_fit"] == {"words": 36, "language": "Korean", "words_in_english": 141}
    assert facts["warnings"] == []
    assert (
        local_gateway.request("GET", f"/hf/{NAME}/info").json()["hubgate"]["chunk_fit"] == facts["chunk_fit"]
    )
    assert size_warning(local_gateway.service.registry.find(NAME), DEFAULT_CHUNKING) == (
        "Chunks of 250 words can be longer than the 256 tokens that the model reads, and text beyond that is not in "
        "their vectors. max_chunk_size 36 fits all languages tested with the model's own tokenizer (most tokens per "
        "word: Korean); 141 fits English. Without chunking_settings, hubgate makes chunks that fit the limit."
    )


@pytest.mark.parametrize("language", SAMPLES)
def test_minilm_reads_whole_chunks_of_the_measured_size(local_gateway: RunningGateway, language: str) -> None:
    words = 141 if language == "English" else 36
    body = {
        "input": "\n".join([SAMPLES[language]] * 8),
        "chunking_settings": {"strategy": "word", "max_chunk_size": words, "overlap": 1},
    }
    reply = local_gateway.request("POST", f"/_inference/{NAME}", body)
    assert reply.status == 200
    assert reply.headers["x-hubgate-truncated"] is None


def test_server_is_measured_at_registration_but_not_at_check(
    gateway: RunningGateway,
) -> None:
    with lookalike("tei", max_tokens=128) as server:
        shown = gateway.add("tei", url=server.url, chunking_settings=DEFAULT_CHUNKING.as_dict())
        assert shown["facts"]["chunk_fit"]["words"] < 128
        assert any("max_chunk_size" in warning for warning in shown["facts"]["warnings"])
        asked = [one.path for one in server.posts]
        assert asked.count("/tokenize") == 2, "the samples, and whether the server adds a prompt"
        assert gateway.request("POST", "/api/endpoints/tei/check").status == 200
        assert [one.path for one in server.posts][len(asked) :] == ["/embed"]


def test_vllm_is_measured_by_its_usage(gateway: RunningGateway) -> None:
    with lookalike("vllm", max_tokens=128) as server:
        fit = gateway.add("vllm", url=server.url)["facts"]["chunk_fit"]
        assert fit["language"] is not None
        assert len(server.posts) > len(SAMPLES)


def test_infinity_is_estimated_because_it_counts_characters(gateway: RunningGateway) -> None:
    with lookalike("infinity", max_tokens=128) as server:
        form = {"max_input_tokens": 128, "chunking_settings": DEFAULT_CHUNKING.as_dict()}
        facts = gateway.add("infinity", url=server.url, **form)["facts"]
        assert facts["chunk_fit"] == {"words": 57, "language": None, "words_in_english": None}
        size, blind = facts["warnings"][-2:]
        assert "by an estimate" in size
        assert "may be cut without notice" in blind


@pytest.mark.parametrize(
    ("facts", "counted", "told"),
    [
        ({}, False, "Set [model]"),
        ({"max_input_tokens": 512}, False, "Set [model]"),
        ({}, True, "Set [max_input_tokens]."),
        ({"max_input_tokens": 512}, True, None),
        ({"auto_truncate": True}, False, "Set [model]"),
        ({"auto_truncate": False}, False, None),
    ],
)
def test_warns_when_truncation_cannot_be_detected(
    facts: dict[str, Any], counted: bool, told: str | None
) -> None:
    async def count(texts: Sequence[str], limit: int | None) -> Sequence[int]:
        del limit
        return [len(text) for text in texts]

    one = Endpoint(
        name="x", task=Task.TEXT_EMBEDDING, source=Source.ROUTER, model="a/b", facts=Facts(**facts)
    )
    warning = blind_warning(one, count if counted else None)
    assert told in (warning or "") if told else warning is None
    assert blind_warning(replace(one, source=Source.LOCAL), None) is None
