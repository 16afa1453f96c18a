"""Copy as: one call in the words of many clients, as pure functions. The tests run what these write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hubgate.domain.calls import Chat, Complete, Embed, Rerank, SparseEmbed
from hubgate.domain.chunking import DEFAULT_CHUNKING
from hubgate.domain.endpoint import Task
from hubgate.web.console.playground.python_snippets import elasticsearch, huggingface_hub, langchain, openai
from hubgate.web.console.playground.snippet_values import KEY, Use, json_block
from hubgate.web.console.playground.web_snippets import curl, fetch, huggingface_js


class Snippet(NamedTuple):
    """One call, written for one client."""

    name: str
    title: str
    """A name, the same in all languages."""
    code: str
    """Empty where a form is to be filled in."""
    fields: Sequence[tuple[str, str]] = ()
    """Of the form: what it calls each field, and what to type."""


class _Client(NamedTuple):
    title: str
    write: Callable[[Use], str]
    kinds: tuple[type, ...]
    """Of the calls that it has."""


_ALL = (Embed, SparseEmbed, Rerank, Chat, Complete)
_CLIENTS = {
    "curl": _Client("curl", curl, _ALL),
    "openai": _Client("Python · openai", openai, (Embed, Rerank, Chat, Complete)),
    "elasticsearch": _Client("Python · elasticsearch", elasticsearch, _ALL),
    "huggingface_hub": _Client("Python · huggingface_hub", huggingface_hub, (Embed, Chat, Complete)),
    "langchain": _Client("Python · LangChain", langchain, (Embed, Chat, Complete)),
    "fetch": _Client("JavaScript · fetch", fetch, _ALL),
    "huggingface_js": _Client("JavaScript · @huggingface/inference", huggingface_js, (Embed, Chat, Complete)),
}
DIFY, KIBANA = "dify", "kibana"
_DIFY_TYPES = {
    Task.TEXT_EMBEDDING: "Text Embedding",
    Task.RERANK: "Rerank",
    Task.COMPLETION: "LLM",
    Task.CHAT_COMPLETION: "LLM",
}
_DIFY_IN_CHINESE = {
    "Model Name": "模型名称",
    "Completion mode": "对话类型",
    "Chat": "对话",
    "Completion": "补全",
    "Model context size": "模型上下文长度",
    "Model max chunks per batch": "模型每批的最大分块数",
}
"""Dify's own words, where its form has them in Chinese; in all other languages the form is English."""
_CHUNKS_A_CALL = 32
_CUT = frozenset({Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING})


def snippets(use: Use, *, chinese: bool = False) -> list[Snippet]:
    """A call in the words of every client that can make it.

    Args:
        use: the call.
        chinese: whether the reader's Dify is Chinese.
    """
    written = [
        Snippet(name, client.title, client.write(use))
        for name, client in _CLIENTS.items()
        if type(use.call) in client.kinds and not _is_chat_of_a_text(name, use)
    ]
    if use.endpoint.task in _DIFY_TYPES:
        written.append(Snippet(DIFY, "Dify", "", _dify(use, chinese=chinese)))
    if not isinstance(use.call, Complete) or use.endpoint.facts.chats is not False:
        written.append(Snippet(KIBANA, "Elasticsearch · Kibana", kibana(use)))
    return written


def kibana(use: Use) -> str:
    """A request for Kibana's console, which makes Elasticsearch ask the gate as if it were Hugging Face.

    It asks at the very URL, and asks a model that writes in OpenAI's words.
    """
    endpoint = use.endpoint
    url = f"{use.gate}/hf/{endpoint.name}"
    if isinstance(use.call, Chat | Complete):
        url += "/v1/chat/completions"
    body: dict[str, Any] = {"service": "hugging_face", "service_settings": {"api_key": KEY, "url": url}}
    if endpoint.task in _CUT:
        body["chunking_settings"] = (endpoint.chunking or DEFAULT_CHUNKING).as_dict()
    return f"PUT _inference/{endpoint.task}/{endpoint.name}\n{json_block(body)}\n"


def _dify(use: Use, *, chinese: bool) -> list[tuple[str, str]]:
    """The form of Dify's provider OpenAI-API-compatible, at its version of 2026-08."""
    endpoint = use.endpoint
    fields = [
        ("Model Type", _DIFY_TYPES[endpoint.task]),
        ("Model Name", use.model),
        ("API Key", KEY),
        ("API Base URL", f"{use.gate}/v1"),
    ]
    if isinstance(use.call, Chat | Complete):
        fields.append(("Completion mode", "Chat" if isinstance(use.call, Chat) else "Completion"))
    if limit := endpoint.token_limit:
        fields.append(("Model context size", str(limit)))
    if endpoint.task is Task.TEXT_EMBEDDING:
        fields.append(("Model max chunks per batch", str(_CHUNKS_A_CALL)))
    if not chinese:
        return fields
    return [(_DIFY_IN_CHINESE.get(name, name), _DIFY_IN_CHINESE.get(value, value)) for name, value in fields]


def _is_chat_of_a_text(client: str, use: Use) -> bool:
    """Elasticsearch's chat with a model that goes on with texts alone."""
    return (
        client == "elasticsearch"
        and isinstance(use.call, Complete)
        and use.endpoint.task is Task.CHAT_COMPLETION
    )
