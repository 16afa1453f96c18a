"""Dify's plugins for Cohere, Jina and Xinference, in the runtime of its SDK.

The plugins are on no package registry, so each request is made here as its source makes it
(langgenius/dify-official-plugins: cohere at 463119d, jina at 80e3153 and d709542, xinference as in forks of it).
The runtime maps errors to Dify's own classes.
"""

from __future__ import annotations

import importlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
from dify_plugin.entities.model import EmbeddingInputType  # type: ignore[import-not-found]
from dify_plugin.entities.model.text_embedding import (  # type: ignore[import-not-found]
    EmbeddingUsage,
    TextEmbeddingResult,
)
from dify_plugin.errors.model import (  # type: ignore[import-not-found]
    InvokeAuthorizationError,
    InvokeBadRequestError,
    InvokeError,
    InvokeRateLimitError,
    InvokeServerUnavailableError,
)
from dify_plugin.interfaces.model.text_embedding_model import (  # type: ignore[import-not-found]
    TextEmbeddingModel,
)
from expected import ENDPOINTS, KEY, SPENT_KEY, TEXTS, URL, check_refused, check_same, passed, version_of
from xinference_client.client.restful.restful_client import (  # type: ignore[import-not-found]
    Client,
    RESTfulEmbeddingModelHandle,
    RESTfulRerankModelHandle,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

version_of("dify-plugin", "cohere", "xinference-client")
cohere: Any = importlib.import_module("cohere")
LOCAL = ENDPOINTS[-1]
MAX_TOKENS, MAX_TEXTS = 512, 48


def result_of(model: str, vectors: Sequence[Sequence[float]], tokens: int) -> TextEmbeddingResult:
    price = {"unit_price": 0, "price_unit": 0, "total_price": 0, "currency": "USD", "latency": 0.0}
    usage = EmbeddingUsage(tokens=tokens, total_tokens=tokens, **price)
    return TextEmbeddingResult(model=model, embeddings=vectors, usage=usage)


class _Embedder(TextEmbeddingModel):  # type: ignore[misc]
    """What every plugin's model has to have."""

    def get_num_tokens(self, *_: object) -> list[int]:
        return []

    def validate_credentials(self, model: str, credentials: dict[str, Any]) -> None:
        self._invoke(model, credentials, ["ping"])


class CohereEmbedder(_Embedder):
    """Tokenizes each text, joins the tokens' texts again in parts that fit, and embeds those."""

    __module__ = "cohere.models.text_embedding"  # the runtime reads the provider from it

    def _invoke(
        self, model: str, credentials: dict[str, Any], texts: list[str], *_: object, **__: object
    ) -> TextEmbeddingResult:
        client = cohere.Client(credentials["api_key"], base_url=credentials["base_url"])
        once = {"max_retries": 0}
        parts = []
        for text in texts:
            reply = client.tokenize(text=text, model=model, offline=False, request_options=once)
            assert len(reply.token_strings) <= MAX_TOKENS
            parts.append("".join(reply.token_strings))
        kind = "search_document" if len(parts) > 1 else "search_query"
        reply = client.embed(texts=parts, model=model, input_type=kind, request_options=once)
        return result_of(model, reply.embeddings, int(reply.meta.billed_units.input_tokens))

    @property
    def _invoke_error_mapping(self) -> dict[type[InvokeError], list[type[Exception]]]:
        errors = cohere.errors
        return {
            InvokeServerUnavailableError: [errors.InternalServerError],
            InvokeRateLimitError: [errors.TooManyRequestsError],
            InvokeAuthorizationError: [errors.UnauthorizedError, errors.ForbiddenError],
            InvokeBadRequestError: [errors.BadRequestError, errors.NotFoundError],
        }


class JinaEmbedder(_Embedder):
    """Sends texts as objects, with a task, and reads `detail` of an error."""

    __module__ = "jina.models.text_embedding"  # the runtime reads the provider from it

    def _invoke(
        self,
        model: str,
        credentials: dict[str, Any],
        texts: list[str],
        _: str | None = None,
        input_type: EmbeddingInputType = EmbeddingInputType.DOCUMENT,
    ) -> TextEmbeddingResult:
        query = input_type == EmbeddingInputType.QUERY
        body = {
            "model": model,
            "input": [{"text": text} for text in texts],
            "task": "retrieval.query" if query else "retrieval.passage",
        }
        headers = {"Authorization": f"Bearer {credentials['api_key']}", "Content-Type": "application/json"}
        reply = httpx.post(f"{credentials['base_url']}/embeddings", headers=headers, content=json.dumps(body))
        if reply.status_code != 200:
            kinds = {
                401: InvokeAuthorizationError,
                429: InvokeRateLimitError,
                500: InvokeServerUnavailableError,
            }
            raise kinds.get(reply.status_code, InvokeBadRequestError)(reply.json()["detail"])
        answer = reply.json()
        vectors = [one["embedding"] for one in answer["data"]]
        return result_of(model, vectors, answer["usage"]["total_tokens"])

    @property
    def _invoke_error_mapping(self) -> dict[type[InvokeError], list[type[Exception]]]:
        kinds = (InvokeServerUnavailableError, InvokeRateLimitError, InvokeAuthorizationError)
        return {**{kind: [kind] for kind in kinds}, InvokeBadRequestError: [KeyError, InvokeBadRequestError]}


class XinferenceEmbedder(_Embedder):
    """Looks at the model first, then embeds."""

    __module__ = "xinference.models.text_embedding"  # the runtime reads the provider from it

    def validate_credentials(self, model: str, credentials: dict[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {credentials['api_key']}"}
        known = httpx.get(f"{credentials['server_url']}/v1/models/{model}", headers=headers).json()
        assert known["model_type"] == "embedding", known
        assert known["model_name"], known
        client = Client(base_url=credentials["server_url"], api_key=credentials["api_key"])
        assert isinstance(client.get_model(model_uid=model), RESTfulEmbeddingModelHandle)
        self._invoke(model, credentials, ["ping"])

    def _invoke(
        self, model: str, credentials: dict[str, Any], texts: list[str], *_: object, **__: object
    ) -> TextEmbeddingResult:
        headers = {"Authorization": f"Bearer {credentials['api_key']}"}
        answer = RESTfulEmbeddingModelHandle(model, credentials["server_url"], headers).create_embedding(
            input=texts
        )
        vectors = [one["embedding"] for one in answer["data"]]
        return result_of(model, vectors, answer["usage"]["total_tokens"])

    @property
    def _invoke_error_mapping(self) -> dict[type[InvokeError], list[type[Exception]]]:
        return {InvokeServerUnavailableError: [RuntimeError], InvokeBadRequestError: [KeyError]}


def credentials_of(key: str) -> dict[str, Any]:
    return {"api_key": key, "base_url": URL, "server_url": URL}


PLUGINS = {"cohere": CohereEmbedder([]), "jina": JinaEmbedder([]), "xinference": XinferenceEmbedder([])}
for plugin, embedder in PLUGINS.items():
    given = credentials_of(KEY) | ({"base_url": f"{URL}/v1"} if plugin == "jina" else {})
    for name in ENDPOINTS if plugin != "cohere" else [LOCAL]:  # the fake model has no tokenizer
        embedder.validate_credentials(name, given)
        check_same(name, embedder.invoke(name, given, TEXTS).embeddings, f"{plugin} embedding")
    kind, words = InvokeAuthorizationError, "credentials"  # the SDK's own words in place of hubgate's
    if plugin == "xinference":
        kind, words = InvokeServerUnavailableError, "key"
    check_refused(partial(embedder.invoke, LOCAL, given | {"api_key": "wrong"}, ["a"]), kind, words)
spent = credentials_of(SPENT_KEY) | {"base_url": f"{URL}/v1"}
PLUGINS["jina"].invoke(LOCAL, spent, ["a"])
check_refused(lambda: PLUGINS["jina"].invoke(LOCAL, spent, ["a"]), InvokeRateLimitError, "limit")
check_refused(
    lambda: PLUGINS["jina"].invoke("none", spent | {"api_key": KEY}, ["a"]), InvokeBadRequestError, "[none]"
)

handle = Client(base_url=URL, api_key=KEY).get_model(model_uid="ranker")
assert isinstance(handle, RESTfulRerankModelHandle), handle
documents = ["a harbour", "a gate"]
ranked = handle.rerank(documents=documents, query="a gate", top_n=None, return_documents=True)["results"]
assert ranked[0]["document"]["text"] == "a gate", ranked
body = {
    "model": "ranker",
    "query": "a gate",
    "documents": documents,
    "top_n": None,
    "return_documents": False,
}
reply = httpx.post(f"{URL}/v1/rerank", headers={"Authorization": f"Bearer {KEY}"}, json=body)
assert [one["index"] for one in reply.json()["results"]] == [1, 0], reply.text
passed("rerank of jina and xinference")
