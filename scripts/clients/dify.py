"""Dify: the OpenAI-compatible client of its SDK, and the requests of its TEI plugin.

The plugin itself is on no package registry, so its requests are made here as its source makes them, not by it.
"""

from __future__ import annotations

import json
import urllib.request

from dify_plugin.entities.model import (  # type: ignore[import-not-found]
    EmbeddingInputType,
)
from dify_plugin.interfaces.model.openai_compatible.text_embedding import (  # type: ignore[import-not-found]
    OAICompatEmbeddingModel,
)
from expected import ENDPOINTS, KEY, TEXTS, URL, check_same, version_of

version_of("dify-plugin")


def post(path: str, body: object) -> object:
    """One request of the TEI plugin."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        answer: object = json.load(reply)
        return answer


def as_the_tei_plugin_asks(endpoint: str) -> None:
    """`/info` to validate, `/tokenize` to cut, `/v1/embeddings` without a model."""
    request = urllib.request.Request(f"{URL}/hf/{endpoint}/info", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        info = json.load(reply)
    assert list(info["model_type"]) == ["embedding"]
    assert int(info.get("max_input_length", 512)) > 0
    batch = int(info["max_client_batch_size"])
    tokens = post(f"/hf/{endpoint}/tokenize", {"inputs": TEXTS})
    assert isinstance(tokens, list)
    assert all({"id", "text", "special", "start", "stop"} == set(token) for text in tokens for token in text)
    vectors = []
    for start in range(0, len(TEXTS), batch):
        reply = post(f"/hf/{endpoint}/v1/embeddings", {"input": TEXTS[start : start + batch]})
        assert isinstance(reply, dict)
        assert reply["usage"]["total_tokens"] > 0
        vectors += [one["embedding"] for one in reply["data"]]
    check_same(endpoint, vectors, "the TEI plugin's requests")


class Compatible(OAICompatEmbeddingModel):  # type: ignore[misc]
    """The SDK's client, without its download of GPT-2's vocabulary, by which it guesses lengths."""

    def _get_num_tokens_by_gpt2(self, text: str) -> int:
        return len(text.split())


for name in ENDPOINTS:
    compatible = Compatible([])
    for base in (f"{URL}/v1", URL):
        settings = {"endpoint_url": base, "api_key": KEY, "context_size": "512", "max_chunks": "32"}
        compatible.validate_credentials(name, settings)
        given = compatible.invoke(name, settings, TEXTS, None, EmbeddingInputType.DOCUMENT)
        check_same(name, given.embeddings, "OpenAI-API-compatible")
    as_the_tei_plugin_asks(name)
