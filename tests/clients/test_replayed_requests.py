"""Requests of applications and databases that are not Python or JavaScript packages, as their source makes them.

Each was read in the repository of its row, at its commit where that is known; its reply is read as the parser there
reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from models import gateway_with

from hubgate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from running_gateway import RunningGateway

QUERY, TEXTS = "a gate", ["a harbour", "a gate"]


class Replay(NamedTuple):
    client: str
    source: str
    """Repository, commit and file."""
    path: str
    body: dict[str, Any]
    read: Callable[[Any], Any]
    key: str = "admin"
    """`fake` and `ranker` are keys with that default endpoint."""


def best(ranked: Any, score: str) -> int:
    index: int = max(ranked, key=lambda one: float(one[score]))["index"]
    return index


EMBEDDINGS = (
    Replay(
        "OpenSearch, OpenAI connector",
        "opensearch-project/ml-commons 08a6b7c standard_blueprints/openai_connector_embedding_standard_blueprint.md",
        "/v1/embeddings",
        {"input": TEXTS, "model": "fake"},
        lambda reply: [one["embedding"] for one in reply["data"]],
    ),
    Replay(
        "OpenSearch, Cohere connector",
        "opensearch-project/ml-commons 0b97cc6 remote_inference_blueprints/cohere_connector_embedding_blueprint.md",
        "/v1/embed",
        {"texts": TEXTS, "truncate": "END", "model": "fake", "input_type": "search_document"},
        lambda reply: reply["embeddings"],
    ),
    Replay(
        "Milvus, TEI function",  # it replaces the path of the endpoint, so the key selects the model
        "milvus-io/milvus 059bfd6 internal/util/function/models/tei/tei.go",
        "/embed",
        {"inputs": TEXTS, "truncate": True, "truncation_direction": "Left"},
        lambda reply: reply,
        key="fake",
    ),
    Replay(
        "Weaviate, text2vec-huggingface",
        "weaviate/weaviate 12366b4 modules/text2vec-huggingface/clients/huggingface.go",
        "/hf/fake",
        {"inputs": TEXTS, "options": {"wait_for_model": True}},
        lambda reply: reply,
    ),
    Replay(
        "n8n, Embeddings Hugging Face Inference",  # its @huggingface/inference is tested beside this file
        "n8n-io/n8n 6f43a2b nodes/embeddings/EmbeddingsHuggingFaceInference/HuggingFaceEmbeddings.ts",
        "/hf/fake",
        {"inputs": TEXTS},
        lambda reply: reply,
    ),
    Replay(
        "Open WebUI, embedding engine openai",
        "open-webui/open-webui, commit not known, backend/open_webui/retrieval/utils.py",
        "/v1/embeddings",
        {"input": TEXTS, "model": "fake"},
        lambda reply: [one["embedding"] for one in reply["data"]],
    ),
    Replay(
        "AnythingLLM, Generic OpenAI",  # by OpenAI's client of npm
        "Mintplex-Labs/anything-llm 0ac463e server/utils/EmbeddingEngines/genericOpenAi/index.js",
        "/v1/embeddings",
        {"model": "fake", "input": TEXTS, "encoding_format": "float"},
        lambda reply: [one["embedding"] for one in reply["data"]],
    ),
)
RERANKS = (
    Replay(
        "OpenSearch, Cohere rerank connector",
        "opensearch-project/ml-commons 8b241a9 remote_inference_blueprints/cohere_connector_rerank_blueprint.md",
        "/v1/rerank",
        {"model": "ranker", "query": QUERY, "documents": TEXTS, "top_n": 3, "return_documents": True},
        lambda reply: best(reply["results"], "relevance_score"),
    ),
    Replay(
        "Milvus, TEI rerank function",
        "milvus-io/milvus 059bfd6 internal/util/function/models/tei/tei.go",
        "/rerank",
        {"query": QUERY, "texts": TEXTS, "truncate": True, "truncation_direction": "Right"},
        lambda reply: best(reply, "score"),
        key="ranker",
    ),
    Replay(
        "Open WebUI, external reranker",
        "open-webui/open-webui 0668cb7 backend/open_webui/retrieval/models/external.py",
        "/v1/rerank",
        {"model": "ranker", "query": QUERY, "documents": TEXTS, "top_n": 2},
        lambda reply: best(reply["results"], "relevance_score"),
    ),
    Replay(
        "RAGFlow, OpenAI-API-Compatible",
        "infiniflow/ragflow or a fork, commit not known, rag/llm/rerank_model.py",
        "/v1/rerank",
        {"model": "ranker", "query": QUERY, "documents": TEXTS, "top_n": 2},
        lambda reply: best(reply["results"], "relevance_score"),
    ),
    Replay(
        "RAGFlow, Xinference",  # flags as strings, and both token counts
        "infiniflow/ragflow or a fork, commit not known, rag/llm/rerank_model.py",
        "/v1/rerank",
        {
            "model": "ranker",
            "query": QUERY,
            "return_documents": "true",
            "return_len": "true",
            "documents": TEXTS,
        },
        lambda reply: (
            sum(reply["meta"]["tokens"][name] for name in ("input_tokens", "output_tokens"))
            and best(reply["results"], "relevance_score")
        ),
    ),
    Replay(
        "RAGFlow, Hugging Face",  # sends no key, so the key is in the path
        "infiniflow/ragflow or a fork, commit not known, rag/llm/rerank_model.py",
        "/k/{key}/hf/ranker/rerank",
        {"query": QUERY, "texts": TEXTS, "raw_scores": False, "truncate": True},
        lambda reply: best(reply, "score"),
        key="wrong",
    ),
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("replayed")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0)
    with gateway_with(replace(settings, keys_in_path=True), "ranker") as (running, _):
        yield running


@pytest.fixture(scope="module")
def keys(gateway: RunningGateway) -> dict[str, str]:
    made = {name: gateway.create_key(name, default_endpoint=name) for name in ("fake", "ranker")}
    return {"admin": gateway.admin_key, "wrong": "wrong", **made}


def answer(gateway: RunningGateway, keys: dict[str, str], replay: Replay) -> Any:
    path = replay.path.format(key=gateway.admin_key)
    reply = gateway.request("POST", path, replay.body, key=keys[replay.key])
    assert reply.status == 200, reply.body
    return replay.read(reply.json())


@pytest.mark.parametrize("replay", EMBEDDINGS, ids=lambda replay: replay.client)
def test_embeddings_are_read_by_other_applications(
    gateway: RunningGateway, keys: dict[str, str], replay: Replay
) -> None:
    vectors = answer(gateway, keys, replay)
    assert [len(vector) for vector in vectors] == [8, 8]
    assert all(isinstance(number, float) for vector in vectors for number in vector)


@pytest.mark.parametrize("replay", RERANKS, ids=lambda replay: replay.client)
def test_ranks_are_read_by_other_applications(
    gateway: RunningGateway, keys: dict[str, str], replay: Replay
) -> None:
    assert answer(gateway, keys, replay) == 1


def test_weaviate_reads_the_message_of_an_error(gateway: RunningGateway) -> None:
    """In its client, `error` of the body must be a string."""
    reply = gateway.request("POST", "/hf/fake", {"inputs": [""], "options": {}})
    assert reply.status >= 400
    assert "empty string" in str(reply.json()["error"])
    assert isinstance(reply.json()["error"], str)
