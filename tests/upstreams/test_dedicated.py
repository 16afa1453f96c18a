"""A complete call to each kind of server, over a socket."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import LookAlike, lookalike, token_count, vector_of

from hubgate.core.vectors import dimensions, floats, in_encoding
from hubgate.domain.calls import Embed, Encoding, Tokenize, Tokens, Vectors
from hubgate.domain.endpoint import Endpoint, Engine, Source, Target, Task
from hubgate.domain.errors import Cause, HubgateError, InvalidEndpoint, InvalidRequest, UpstreamRefused
from hubgate.domain.secret import Secret
from hubgate.settings import Settings
from hubgate.upstreams.sources import ModelSources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hubgate.domain.ports import Upstream

TEXTS = ["one text", "another one", "a third"]


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[ModelSources]:
    sources = ModelSources(Settings(home=tmp_path, secret_key_file=tmp_path / "key"))
    yield sources
    await sources.close()


def endpoint(url: str, **fields: Any) -> Endpoint:
    return Endpoint(
        **{"name": "e", "task": Task.TEXT_EMBEDDING, "source": Source.DEDICATED, "url": url} | fields
    )


async def opened(sources: ModelSources, url: str, token: Secret | None = None, **fields: Any) -> Upstream:
    draft = endpoint(url, **fields)
    return sources.open(Target(replace(draft, facts=await sources.detect(Target(draft, token))), token))


async def embed(upstream: Upstream, call: Embed) -> Vectors:
    result = await upstream(call)
    assert isinstance(result, Vectors)
    return result


def same(vectors: Vectors, texts: list[str]) -> bool:
    singles = in_encoding(vectors, Encoding.F32).items
    return [floats(item) for item in singles] == [vector_of(text, 8) for text in texts]


SERVERS: list[tuple[str, dict[str, Any]]] = [
    ("tei", {}),
    ("vllm", {}),
    ("sglang", {}),
    ("sglang", {"base64": False}),
    ("llamacpp", {}),
    ("infinity", {}),
    ("infinity", {"prefix": ""}),
    ("toolkit", {}),
]


@pytest.mark.parametrize(("engine", "model"), SERVERS)
async def test_every_server_embeds_in_one_request_in_input_order(
    sources: ModelSources, engine: str, model: dict[str, Any]
) -> None:
    with lookalike(engine, key="hf_secret", **model) as server:
        upstream = await opened(sources, server.url + "/", Secret("hf_secret"))
        before = len(server.requests)
        vectors = await embed(upstream, Embed(texts=TEXTS))
        assert len(server.requests) == before + 1
        assert server.requests[-1].token == "hf_secret"
        await upstream.close()
    assert same(vectors, TEXTS)
    assert (vectors.tokens if vectors.exact else None) == (
        sum(map(token_count, TEXTS)) if engine in {"tei", "vllm", "llamacpp"} else None
    )


async def test_unpooled_reply_is_mean_pooled_with_a_warning(sources: ModelSources) -> None:
    with lookalike("toolkit", kind="tokens") as server:
        vectors = await embed(await opened(sources, server.url), Embed(texts=["a b", "c"]))
    expected = [
        sum(column) / 4
        for column in zip(*(vector_of(w, 8) for w in ("[CLS]", "a", "b", "[SEP]")), strict=True)
    ]
    assert floats(vectors.items[0]) == pytest.approx(expected, abs=1e-6)
    assert len(vectors.warnings) == 1


async def test_native_llamacpp_route_is_read(sources: ModelSources) -> None:
    with lookalike("llamacpp") as server:
        draft = endpoint(server.url)
        facts = replace(await sources.detect(Target(draft)), route="/embeddings")
        vectors = await embed(sources.open(Target(replace(draft, facts=facts))), Embed(texts=TEXTS))
    assert same(vectors, TEXTS)
    assert vectors.warnings == ()


@pytest.mark.parametrize("engine", ["tei", "vllm"])
async def test_long_texts_are_truncated_unless_disabled_by_caller(sources: ModelSources, engine: str) -> None:
    long = " ".join(map(str, range(20)))
    with lookalike(engine, max_tokens=10) as server:
        upstream = await opened(sources, server.url)
        assert same(await embed(upstream, Embed(texts=[long])), ["0 1 2 3 4 5 6 7"])
        with pytest.raises(UpstreamRefused) as caught:
            await upstream(Embed(texts=[long], truncate=False))
    assert caught.value.cause is Cause.INPUT_TOO_LONG
    assert caught.value.remedy == "Send shorter texts, or allow truncation."


@pytest.mark.parametrize("engine", ["sglang", "llamacpp", "toolkit"])
async def test_server_without_truncation_reports_too_long_text(sources: ModelSources, engine: str) -> None:
    kind = "tokens" if engine == "toolkit" else "embedding"
    with lookalike(engine, max_tokens=10, kind=kind) as server:
        upstream = await opened(sources, server.url)
        for truncate in (None, False):
            with pytest.raises(UpstreamRefused) as caught:
                await upstream(Embed(texts=["word " * 20], truncate=truncate))
            assert (caught.value.cause, caught.value.remedy) == (
                Cause.INPUT_TOO_LONG,
                "Send shorter texts.",
            )


async def failure(upstream: Upstream, texts: list[str] = TEXTS) -> HubgateError:
    with pytest.raises(HubgateError) as caught:
        await upstream(Embed(texts=texts))
    return caught.value


FAULTS = {
    "paused": Cause.PAUSED,
    "waking-503": Cause.WAKING,
    "waking-502": Cause.WAKING,
    "too-many": Cause.OVERLOADED,
    "backend": Cause.UPSTREAM_FAILED,
    "wrong-token": Cause.WRONG_TOKEN,
    "html": Cause.NOT_AN_API,
    "not-json": Cause.UNREADABLE_REPLY,
    "close": Cause.CONNECTION_LOST,
    "half": Cause.CONNECTION_LOST,
    "redirect": Cause.UPSTREAM_REDIRECTS,
    "fewer": Cause.WRONG_COUNT,
    "more": Cause.WRONG_COUNT,
    "nan": Cause.NOT_A_NUMBER,
}


@pytest.mark.parametrize("engine", ["tei", "vllm", "toolkit"])
async def test_every_fault_has_its_cause_and_clears_when_the_server_recovers(
    sources: ModelSources, engine: str
) -> None:
    with lookalike(engine) as server:
        upstream = await opened(sources, server.url, Secret("hf_one"))
        for fault, cause in FAULTS.items():
            server.fail(fault, times=1)
            assert (fault, (await failure(upstream)).cause) == (fault, cause)
        assert same(await embed(upstream, Embed(texts=TEXTS)), TEXTS)


async def test_retry_after_from_the_server_is_reported(sources: ModelSources) -> None:
    with lookalike("tei", rate_limit=(1, 60)) as server:
        upstream = await opened(sources, server.url)
        await embed(upstream, Embed(texts=TEXTS))
        error = await failure(upstream)
    assert (error.cause, error.retryable, error.retry_after) == (Cause.OVERLOADED, True, 7)


async def test_client_batch_limit_is_enforced_by_the_server(sources: ModelSources) -> None:
    with lookalike("tei", max_batch=2) as server:
        error = await failure(await opened(sources, server.url))
    assert error.cause is Cause.INPUT_REFUSED
    assert "batch size 3 > maximum allowed batch size 2" in error.message


async def test_token_repeated_by_the_server_is_redacted(sources: ModelSources) -> None:
    token = Secret("hf_AVerySecretTokenIndeed")
    with lookalike("tei") as server:
        upstream = await opened(sources, server.url, token)
        server.fail("echo")
        error = await failure(upstream)
    assert isinstance(error, UpstreamRefused)
    assert "Bad header" in error.server_message
    assert "VerySecret" not in f"{error} {error!r} {error.server_message} {error.args}"


async def test_unexpected_dimensions_are_passed_on_to_the_guard(sources: ModelSources) -> None:
    with lookalike("tei", fault="other-dimensions") as server:
        vectors = await embed(await opened(sources, server.url), Embed(texts=TEXTS))
    assert dimensions(vectors.items[0], vectors.encoding) == 9


async def test_tei_applies_model_prompts(sources: ModelSources) -> None:
    with lookalike("tei", prompts={"query": "query: "}) as server:
        vectors = await embed(await opened(sources, server.url), Embed(texts=["a"], prompt_name="query"))
        assert server.batches == [["a"]]
    assert same(vectors, ["query: a"])


async def tokens(sources: ModelSources, server: LookAlike, call: Tokenize) -> Tokens:
    result = await (await opened(sources, server.url))(call)
    assert isinstance(result, Tokens)
    return result


async def test_tei_tokenizes(sources: ModelSources) -> None:
    with lookalike("tei") as server:
        told = await tokens(sources, server, Tokenize(texts=["ein Wort", "x"]))
        bare = await tokens(sources, server, Tokenize(texts=["x"], add_special_tokens=False))
    assert [token.text for token in told.items[0]] == ["[CLS]", "ein", "Wort", "[SEP]"]
    assert (told.items[0][2].start, told.items[0][2].stop) == (4, 8)
    assert [token.text for token in bare.items[0]] == ["x"]


async def test_server_without_tokenize_route_reports_it(sources: ModelSources) -> None:
    with lookalike("vllm") as server:
        upstream = await opened(sources, server.url)
        with pytest.raises(InvalidRequest, match="cannot tokenize"):
            await upstream(Tokenize(texts=["a"]))


@pytest.mark.parametrize("token", ["hf_a b", "hf_\t1", "hf_ü"])
async def test_malformed_token_is_rejected_without_repeating_it(sources: ModelSources, token: str) -> None:
    with pytest.raises(InvalidEndpoint) as caught:
        await sources.detect(Target(endpoint("http://127.0.0.1:1"), Secret(token)))
    assert "hf_" not in str(caught.value)


@pytest.mark.parametrize("engine", [None, Engine.OPENVINO])
async def test_endpoint_without_a_known_engine_cannot_be_opened(
    sources: ModelSources, engine: Engine | None
) -> None:
    with pytest.raises(InvalidEndpoint, match="not known to run"):
        sources.open(Target(endpoint("http://host", engine=engine)))


async def test_opening_an_upstream_sends_no_requests(sources: ModelSources) -> None:
    sources.open(Target(endpoint("http://127.0.0.1:1", engine=Engine.TEI)))


async def test_request_body_and_content_type_are_json(sources: ModelSources) -> None:
    with lookalike("toolkit") as server:
        await embed(await opened(sources, server.url), Embed(texts=["ü"]))
        asked = server.posts[-1]
    assert asked.headers["content-type"] == "application/json"
    assert json.loads(asked.body) == {"inputs": ["ü"]}
