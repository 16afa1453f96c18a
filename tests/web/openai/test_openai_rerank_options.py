"""Options of rerank requests, at a real gateway with real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import LookAlike, lookalike

if TYPE_CHECKING:
    from running_gateway import RunningGateway

QUERY = "red fox"
TEXTS = ["nothing of it", "the red fox", "a fox"]
LONG = "word " * 40 + "red fox"


def ranked(gateway: RunningGateway, path: str = "/v1/rerank", **more: Any) -> Any:
    body = {"model": "r", "query": QUERY, "documents": TEXTS, **more}
    reply = gateway.request("POST", path, body)
    assert reply.status == 200, reply.body
    return reply.json()


def refused(gateway: RunningGateway, **more: Any) -> str:
    reply = gateway.request("POST", "/v1/rerank", {"model": "r", "query": QUERY, "documents": TEXTS, **more})
    assert reply.status == 400
    message: str = reply.json()["error"]["message"]
    assert reply.json()["detail"] == message
    return message


def asked_texts(server: LookAlike) -> list[str]:
    return server.posts[-1].texts


@pytest.mark.parametrize("engine", ["tei", "llamacpp", "toolkit"])
def test_options_that_haystack_and_cohere_always_send_are_ignored(
    gateway: RunningGateway, engine: str
) -> None:
    """Haystack's CohereRanker sends `max_tokens_per_doc: 4096` by default."""
    with lookalike(engine, kind="reranker") as server:
        gateway.add("r", url=server.url, task="rerank")
        plain = ranked(gateway)["results"]
        for more in (
            {"max_tokens_per_doc": 4096},
            {"max_doc_length": 1024, "truncation": True, "return_embeddings": False},
            {"max_chunks_per_doc": 10, "rank_fields": ["text"], "priority": 3},
            {"max_tokens_per_doc": None, "max_chunks_per_doc": None, "rank_fields": None},
        ):
            assert ranked(gateway, **more)["results"] == plain
        assert asked_texts(server) == TEXTS or engine == "toolkit"


def test_max_tokens_per_doc_truncates_documents_with_the_tokenizer_of_the_model(
    gateway: RunningGateway,
) -> None:
    with lookalike("tei", kind="reranker") as server:
        gateway.add("r", url=server.url, task="rerank")
        ranked(gateway, documents=["a fox", LONG, "é" * 30, "x" * 5000], max_tokens_per_doc=20)
        assert asked_texts(server) == ["a fox", " ".join(["word"] * 20), "é" * 30, "x" * 640]


def test_max_tokens_per_doc_without_a_tokenizer_is_rejected(gateway: RunningGateway) -> None:
    with lookalike("llamacpp", kind="reranker") as server:
        gateway.add("r", url=server.url, task="rerank")
        assert "[max_tokens_per_doc] cannot be 20" in refused(
            gateway, documents=[LONG], max_tokens_per_doc=20
        )
        ranked(gateway, documents=["a fox"], max_tokens_per_doc=20)
    with lookalike("toolkit", kind="reranker") as server:  # how much its model reads is not known
        gateway.add("s", url=server.url, task="rerank")
        ranked(gateway, model="s", documents=[LONG], max_tokens_per_doc=len(LONG) // 2)
        assert "cannot be 20" in refused(gateway, model="s", documents=[LONG], max_tokens_per_doc=20)


def test_unsupported_options_are_rejected_with_a_message(gateway: RunningGateway) -> None:
    with lookalike("tei", kind="reranker") as server:
        gateway.add("r", url=server.url, task="rerank")
        assert "ranked by their [text] alone" in refused(gateway, rank_fields=["title"])
        assert "has only scores" in refused(gateway, return_embeddings=True)
        assert "[max_tokens_per_doc] must be at least 1" in refused(gateway, max_tokens_per_doc=0)


@pytest.mark.parametrize("path", ["/v1/v2/rerank", "/v1/v1/rerank"])
def test_coheres_base_url_may_end_in_v1(gateway: RunningGateway, path: str) -> None:
    with lookalike("tei", kind="reranker") as server:
        gateway.add("r", url=server.url, task="rerank")
        assert ranked(gateway, path)["results"][0]["index"] == 1


def test_rerank_and_embedding_errors_have_the_detail_that_jinas_plugin_reads(
    gateway: RunningGateway,
) -> None:
    for path in ("/v1/rerank", "/v1/embeddings", "/hf/none/v1/rerank"):
        reply = gateway.request(
            "POST", path, {"model": "none", "query": "a", "documents": ["b"], "input": "a"}
        )
        assert reply.json()["detail"] == reply.json()["error"]["message"]
    assert "detail" not in gateway.request("POST", "/v1/chat/completions", {"model": "none"}).json()
    assert "detail" not in gateway.request("POST", "/rerank", {"query": "a", "texts": ["b"]}).json()
    wrong = gateway.request("POST", "/v1/rerank", {}, key="wrong")
    assert (wrong.status, wrong.json()["detail"]) == (401, wrong.json()["error"]["message"])
