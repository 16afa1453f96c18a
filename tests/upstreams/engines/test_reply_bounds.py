"""Limits on the size of a reply, derived from the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from raw_server import raw_server

from hubgate.domain.calls import Embed, Rerank, SparseEmbed, Tokenize
from hubgate.domain.endpoint import Endpoint, Engine, Facts, Source, Target, Task
from hubgate.domain.errors import Cause, UpstreamUnreadable
from hubgate.settings import Settings
from hubgate.upstreams.engines.embeddings import max_vectors, max_vectors_bytes
from hubgate.upstreams.engines.specs import SPECS
from hubgate.upstreams.http.messages import HttpRequest
from hubgate.upstreams.sources import ModelSources

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hubgate.domain.calls import Call

MIB = 1 << 20


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[ModelSources]:
    settings = Settings(home=tmp_path, secret_key_file=tmp_path / "key", max_reply_bytes=16 * MIB)
    opened = ModelSources(settings)
    yield opened
    await opened.close()


async def ask(sources: ModelSources, call: Call, reply: bytes, **facts: object) -> object:
    """Have a TEI server send this reply, as it comes: without a length."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + reply)
        await writer.drain()

    async with raw_server(answer) as port:
        endpoint = Endpoint(
            name="it",
            task=Task.TEXT_EMBEDDING,
            source=Source.DEDICATED,
            url=f"http://127.0.0.1:{port}",
            facts=Facts(**{"engine": Engine.TEI, **facts}),  # type: ignore[arg-type] # as the tests give them
        )
        return await sources.open(Target(endpoint))(call)


CALLS: dict[str, Call] = {
    "vectors": Embed(texts=["a", "b"]),
    "scores": Rerank(query="q", texts=["a", "b"]),
    "tokens": Tokenize(texts=["a", "b"]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_oversized_reply_is_rejected(sources: ModelSources, call: Call) -> None:
    with pytest.raises(UpstreamUnreadable, match="far more than this request needs") as caught:
        await ask(sources, call, b" " * (2 * MIB), dimensions=384)
    assert caught.value.cause is Cause.UNREADABLE_REPLY
    assert "URL and engine" in caught.value.remedy


async def test_sparse_reply_limit_fits_a_whole_vocabulary(sources: ModelSources) -> None:
    words = [{"index": place, "value": 0.123456789} for place in range(30_522)]
    reply = orjson.dumps([words, words])
    call = SparseEmbed(texts=["a", "b"])
    assert await ask(sources, call, reply)
    with pytest.raises(UpstreamUnreadable, match="far more"):
        await ask(sources, call, b" " * (5 * MIB))


async def test_reply_of_unknown_size_is_limited_by_setting(sources: ModelSources) -> None:
    with pytest.raises(UpstreamUnreadable, match="the limit set by HUBGATE_MAX_REPLY_BYTES"):
        await ask(sources, Embed(texts=["a"]), b" " * (17 * MIB), engine=Engine.TOOLKIT, route="/")


async def test_vectors_of_maximum_json_length_are_accepted(sources: ModelSources) -> None:
    vector = b"[" + b",".join([b"-1.2345678901234567e-05"] * 4096) + b"]"
    reply = b"[" + b",\n  ".join([vector] * 32) + b"]"
    vectors = await ask(sources, Embed(texts=["a"] * 32), reply, dimensions=4096)
    assert len(vectors.items) == 32  # type: ignore[attr-defined] # they are vectors


async def test_large_replies_are_read_like_small_ones(sources: ModelSources) -> None:
    token = {"id": 1, "text": "a", "special": False, "start": 0, "stop": 1}
    tokens = await ask(sources, Tokenize(texts=["a " * 15_000]), orjson.dumps([[token] * 30_000]))
    assert len(tokens.items[0]) == 30_000  # type: ignore[attr-defined] # they are tokens


def test_rerank_reply_limit_fits_returned_and_escaped_texts() -> None:
    body = orjson.dumps({"query": "q", "documents": ["\x01" * 100_000]})
    route = SPECS[Engine.TEI].rerank
    assert route is not None
    call = Rerank(query="q", texts=["\x01" * 100_000])
    request = HttpRequest(method="POST", url="", body=body)
    assert route.max_reply_bytes(call, request, None) > len(body) * 2


@pytest.mark.parametrize("dimensions", [None, 1, 384, 16_384, 10_000_000])
def test_max_vectors_is_the_most_that_fit_one_reply(dimensions: int | None) -> None:
    most = max_vectors(32 * MIB, dimensions)
    assert most == 1 or max_vectors_bytes(most, dimensions) <= 32 * MIB
    assert max_vectors_bytes(most + 1, dimensions) > 32 * MIB
