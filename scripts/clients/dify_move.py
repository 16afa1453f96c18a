"""The recipe for Dify of docs/changing-models.md: a knowledge base changes its model, and aliases move behind Dify.

Requests are those of Dify's SDK. Dify itself is not here: `KnowledgeBase` does with vectors what its source does
(`deal_dataset_vector_index_task`: change the name of the model, delete the index, embed all segments again).
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from dify_models import Embedder, Ranker, Writer
from dify_plugin.entities.model import EmbeddingInputType  # type: ignore[import-not-found]
from dify_plugin.entities.model.message import UserPromptMessage  # type: ignore[import-not-found]
from dify_plugin.errors.model import InvokeError  # type: ignore[import-not-found]
from expected import ENDPOINTS, HEADERS, KEY, PROMPT, TEXTS, URL, check_text, passed, version_of

version_of("dify-plugin")
OLD, NEW = ENDPOINTS
SETTINGS = {"endpoint_url": f"{URL}/v1", "api_key": KEY, "context_size": "512", "max_chunks": "1"}
Vectors = list[list[float]]


def embed(model: str, texts: list[str], kind: EmbeddingInputType = EmbeddingInputType.DOCUMENT) -> Vectors:
    vectors: Vectors = Embedder([]).invoke(model, SETTINGS, texts, None, kind).embeddings
    return vectors


def write(model: str) -> str:
    prompts = [UserPromptMessage(content=PROMPT)]
    chunks = Writer([]).invoke(model, SETTINGS | {"mode": "chat"}, prompts, {"max_tokens": 16}, stream=True)
    return "".join(chunk.delta.message.content for chunk in chunks)


class KnowledgeBase:
    """The name of a model, and an index of vectors."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.index: dict[str, list[float]] = {}

    def rebuild(self) -> None:
        """Embed the segments again; queries go on meanwhile."""
        self.index.clear()
        for text in TEXTS:
            self.index[text] = embed(self.model, [text])[0]
            assert self.search(text) == text

    def search(self, query: str) -> str:
        """The nearest segment. Vectors of different lengths are an error, as in a vector database."""
        wanted = embed(self.model, [query], EmbeddingInputType.QUERY)[0]
        score = {
            text: sum(a * b for a, b in zip(wanted, vector, strict=True))
            for text, vector in self.index.items()
        }
        return max(score, key=score.__getitem__)


def ask(method: str, path: str, body: object = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {**HEADERS, "Content-Type": "application/json"}
    request = urllib.request.Request(URL + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.loads(reply.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def move(alias: str, endpoint: str, *, accept: bool = False) -> tuple[int, Any]:
    return ask("PUT", f"/api/aliases/{alias}", {"endpoint": endpoint, "accept_new_vectors": accept})


def clone(endpoint: str) -> str:
    name = f"{endpoint}-moved"
    assert ask("POST", f"/api/endpoints/{endpoint}/clone", {"name": name})[0] == 201
    return name


def change_the_model_of_a_knowledge_base() -> None:
    """Both endpoints by their own names, as the recipe says."""
    base = KnowledgeBase(OLD)
    for model in (OLD, NEW, OLD):
        Embedder([]).validate_credentials(model, SETTINGS)
        base.model = model
        base.rebuild()
        assert [base.search(text) for text in TEXTS] == TEXTS
    passed("a knowledge base changes its model, and changes it back")


def keep_an_alias_with_its_vectors() -> None:
    """An alias in a knowledge base moves to the same model only; else Dify's queries would not fit its index."""
    assert move("knowledge", OLD)[0] == 200
    base = KnowledgeBase("knowledge")
    base.rebuild()
    status, refused = move("knowledge", NEW)
    assert (status, refused["error"]["cause"]) == (409, "new_vectors"), refused
    assert base.search(TEXTS[0]) == TEXTS[0]
    assert move("knowledge", clone(OLD))[0] == 200
    assert embed("knowledge", TEXTS) == embed(OLD, TEXTS)
    assert [base.search(text) for text in TEXTS] == TEXTS
    passed("an alias in a knowledge base moves only where its vectors stay")
    assert move("knowledge", NEW, accept=True)[0] == 200
    try:
        base.search(TEXTS[0])
    except ValueError:
        passed("an alias moved to another model would break a knowledge base")
    else:
        raise AssertionError("The vectors fit.")


def move_a_writer_and_a_ranker() -> None:
    """The first server is gone, so an answer must come from the second."""
    assert move("writer", "gone-llm")[0] == 200
    try:
        write("writer")
    except InvokeError:
        pass
    else:
        raise AssertionError("The server is gone.")
    assert move("writer", "llm")[0] == 200
    check_text(write("writer"), "the alias of a chat model, moved")
    for endpoint in ("ranker", clone("ranker")):
        assert move("ranking", endpoint)[0] == 200
        Ranker([]).validate_credentials("ranking", SETTINGS)
        ranked = Ranker([]).invoke("ranking", SETTINGS, "a gate", ["a harbour", "a gate"]).docs
        assert [document.text for document in ranked] == ["a gate", "a harbour"], ranked
    passed("the alias of a reranker, moved")


change_the_model_of_a_knowledge_base()
keep_an_alias_with_its_vectors()
move_a_writer_and_a_ranker()
for name in ("knowledge", "writer", "ranking"):
    assert ask("DELETE", f"/api/aliases/{name}")[0] == 204
for name in (f"{OLD}-moved", "ranker-moved"):
    assert ask("DELETE", f"/api/endpoints/{name}")[0] == 204
