"""Dify: the OpenAI-compatible client of its SDK, and its TEI plugin.

The plugins are not on a package registry. Where HUBGATE_DIFY_PLUGINS is the folder of a checkout of
langgenius/dify-official-plugins, its own TEI plugin runs; else its requests are made as it makes them.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path

from dify_plugin.entities.model import (  # type: ignore[import-not-found]
    EmbeddingInputType,
)
from dify_plugin.interfaces.model.openai_compatible.text_embedding import (  # type: ignore[import-not-found]
    OAICompatEmbeddingModel,
)
from expected import ENDPOINTS, KEY, TEXTS, URL, check_same, passed, version_of

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


def with_the_tei_plugin(plugins: Path, endpoint: str) -> None:
    """The plugin itself."""
    sys.path.insert(0, str(plugins / "models" / "huggingface_tei"))
    from models.text_embedding.text_embedding import (  # type: ignore[import-not-found]  # noqa: PLC0415
        HuggingfaceTeiTextEmbeddingModel,
    )

    model = HuggingfaceTeiTextEmbeddingModel([])
    credentials = {"server_url": f"{URL}/hf/{endpoint}", "api_key": KEY}
    model.validate_credentials(endpoint, credentials)
    result = model.invoke(endpoint, credentials, TEXTS, None, EmbeddingInputType.DOCUMENT)
    check_same(endpoint, result.embeddings, "the TEI plugin")


for name in ENDPOINTS:
    compatible = OAICompatEmbeddingModel([])
    for base in (f"{URL}/v1", URL):
        settings = {"endpoint_url": base, "api_key": KEY, "context_size": "512", "max_chunks": "32"}
        compatible.validate_credentials(name, settings)
        given = compatible.invoke(name, settings, TEXTS, None, EmbeddingInputType.DOCUMENT)
        check_same(name, given.embeddings, "OpenAI-API-compatible")
    as_the_tei_plugin_asks(name)
    if checkout := os.environ.get("HUBGATE_DIFY_PLUGINS"):
        with_the_tei_plugin(Path(checkout), name)
if not checkout:
    passed("(the TEI plugin itself was not run: HUBGATE_DIFY_PLUGINS is not set)")
