"""Parse what an operator pastes: a model name, a link to the Hub, or an endpoint URL. No request is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

_HUB = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_OLD = "api-inference.huggingface.co"
_CONSOLE = frozenset({"endpoints.huggingface.co", "ui.endpoints.huggingface.co"})
_ROUTER = "router.huggingface.co"
_ENDPOINTS = ".endpoints.huggingface.cloud"
_PART = r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,95}"
_MODEL = re.compile(rf"{_PART}/{_PART}")
_NOT_OWNERS = frozenset(
    {"datasets", "spaces", "docs", "blog", "papers", "settings", "collections", "api", "models"}
)
_NAME_HINTS = (
    ("rerank", ("rerank", "ranker", "cross-encoder", "ms-marco")),
    (
        "embedding",
        ("embed", "sentence", "minilm", "mpnet", "e5-", "bge-", "gte-", "labse", "nomic", "splade"),
    ),
)
"""Parts of model names that suggest a model type, the most reliable first; all other models generate text."""
TEXT_TO_TEXT = "text2text-generation"
"""Hugging Face's other name for completion, which the guides offer besides text-generation."""
_KIND_BY_TAG = {
    "feature-extraction": "embedding",
    "sentence-similarity": "embedding",
    "text-ranking": "rerank",
    "text-generation": "llm",
    TEXT_TO_TEXT: "llm",
}


def parse_pasted(pasted: str) -> Mapping[str, str]:
    """The form fields that follow from the pasted text; empty if it is not recognized.

    A model name does not say where the model runs, so that field is not set.
    """
    pasted = pasted.strip().strip("\"'<>")
    if _MODEL.fullmatch(pasted):
        return _of_model(pasted)
    try:
        parts = urlsplit(pasted if "://" in pasted else f"https://{pasted}")
        host = (parts.hostname or "").lower()
    except ValueError:
        return {}
    path = [segment for segment in parts.path.split("/") if segment]
    if host in _HUB:
        return _of_hub(path, parts.query)
    if host in (_OLD, _ROUTER):
        model = re.search(rf"/({_PART}/{_PART})", parts.path.partition("models")[2])
        return {**(_of_model(model[1]) if model else {}), "where": "router"}
    if host in _CONSOLE:
        return _of_console(path)
    return _of_url(pasted, host) if "://" in pasted and host else {}


def suggested_name(model: str) -> str:
    """A name for an endpoint of this model, valid as an id in Elasticsearch."""
    return _as_name(model.rpartition("/")[2])


def name_of_server(url: str) -> str:
    """A name for an endpoint from its URL: the Inference Endpoint's own name, or the server's host and port."""
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if host.endswith(_ENDPOINTS):
        return _as_name(host.partition(".")[0])
    return _as_name(f"{host}-{port}" if port else host)


def _as_name(text: str) -> str:
    return re.sub(r"[^a-z0-9_.\-]+", "-", text.lower()).strip("-_.")


def _of_model(model: str) -> dict[str, str]:
    folded = model.lower()
    kind = next((kind for kind, hints in _NAME_HINTS if any(hint in folded for hint in hints)), "llm")
    return {"model": model, "kind": kind, "name": suggested_name(model)}


def _of_hub(path: list[str], query: str) -> dict[str, str]:
    """From a page of the Hub: a model, or a search for models of a task."""
    tag = parse_qs(query).get("pipeline_tag", [""])[0]
    if path[:1] == ["models"] and tag in _KIND_BY_TAG:
        task = {"task_llm": tag} if tag == TEXT_TO_TEXT else {}
        return {"kind": _KIND_BY_TAG[tag], **task}
    if len(path) >= 2 and path[0] not in _NOT_OWNERS:
        return _of_model(f"{path[0]}/{path[1]}")
    return {}


def _of_console(path: list[str]) -> dict[str, str]:
    """From the page that manages an endpoint, which is not its URL but contains its owner and name."""
    if len(path) >= 2 and path[1] == "endpoints":
        found = {"where": "dedicated", "namespace": path[0]}
        return {**found, "name": suggested_name(path[2])} if len(path) > 2 else found
    return {}


def _of_url(pasted: str, host: str) -> dict[str, str]:
    found = {"where": "dedicated", "url": pasted, "name": name_of_server(pasted)}
    if host.endswith(_ENDPOINTS):
        return found
    return {**found, "connection": ""}  # a self-hosted server: never send it a Hugging Face token
