"""What an operator pastes: a model's name, a link to the Hub, or the URL of an endpoint. No one is asked about it."""

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
_SIGNS = (
    ("rerank", ("rerank", "ranker", "cross-encoder", "ms-marco")),
    (
        "embedding",
        ("embed", "sentence", "minilm", "mpnet", "e5-", "bge-", "gte-", "labse", "nomic", "splade"),
    ),
)
"""What the names of models tell of their kind, the surest first; all else writes."""
TEXT_TO_TEXT = "text2text-generation"
"""Hugging Face's other word for completion, which the guides offer beside text-generation."""
_OF_TAG = {
    "feature-extraction": "embedding",
    "sentence-similarity": "embedding",
    "text-ranking": "rerank",
    "text-generation": "llm",
    TEXT_TO_TEXT: "llm",
}


def understood(pasted: str) -> Mapping[str, str]:
    """The fields of the form that follow from what was pasted; none if it says nothing.

    A name of a model says where it is on the Hub, but not where it is to run: that is left as it was.
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
    """A name for an endpoint of a model: what Elasticsearch takes for an id."""
    return _as_name(model.rpartition("/")[2])


def name_of_server(url: str) -> str:
    """A name for an endpoint by its URL: an Inference Endpoint's own name, or another server's host and port."""
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
    kind = next((kind for kind, signs in _SIGNS if any(sign in folded for sign in signs)), "llm")
    return {"model": model, "kind": kind, "name": suggested_name(model)}


def _of_hub(path: list[str], query: str) -> dict[str, str]:
    """A page of the Hub: of a model, or of a search for models of a kind."""
    tag = parse_qs(query).get("pipeline_tag", [""])[0]
    if path[:1] == ["models"] and tag in _OF_TAG:
        task = {"task_llm": tag} if tag == TEXT_TO_TEXT else {}
        return {"kind": _OF_TAG[tag], **task}
    if len(path) >= 2 and path[0] not in _NOT_OWNERS:
        return _of_model(f"{path[0]}/{path[1]}")
    return {}


def _of_console(path: list[str]) -> dict[str, str]:
    """The page on which an endpoint is managed, which is not the endpoint: at least it says whose it is."""
    if len(path) >= 2 and path[1] == "endpoints":
        found = {"where": "dedicated", "namespace": path[0]}
        return {**found, "name": suggested_name(path[2])} if len(path) > 2 else found
    return {}


def _of_url(pasted: str, host: str) -> dict[str, str]:
    found = {"where": "dedicated", "url": pasted, "name": name_of_server(pasted)}
    if host.endswith(_ENDPOINTS):
        return found
    return {**found, "connection": ""}  # a server of one's own: a token of Hugging Face is not for it
