"""A playground call as code for other clients, rendered from `templates/snippets`. The tests run the results."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import msgspec

from hubgate.domain.calls import Chat, Complete, Embed, Rerank, SparseEmbed
from hubgate.domain.chunking import DEFAULT_CHUNKING
from hubgate.domain.endpoint import Endpoint, InputType, Task

if TYPE_CHECKING:
    from jinja2 import Environment

PlaygroundCall: TypeAlias = Embed | SparseEmbed | Rerank | Chat | Complete

KEY = "YOUR_HUBGATE_KEY"
"""Placeholder for a gateway key."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MODEL_SUFFIXES = {InputType.SEARCH: ":query", InputType.INGEST: ":document"}
_KINDS = {Embed: "embed", SparseEmbed: "sparse", Rerank: "rerank", Chat: "chat", Complete: "text"}
_PATHS = {
    "embed": "/v1/embeddings",
    "rerank": "/v1/rerank",
    "chat": "/v1/chat/completions",
    "text": "/v1/completions",
}
_ELASTIC_CHAT = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_completion_tokens",
    "stop": "stop",
}
"""The parameters of Elasticsearch's chat completion API, by OpenAI's names."""
_EXTRA_BODY = ("top_k", "repetition_penalty")
"""Parameters that OpenAI's client only accepts in `extra_body`."""


class Snippet(NamedTuple):
    """A call for one client: code, or the fields of a form to fill in."""

    name: str
    title: str
    code: str
    fields: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class SnippetContext:
    """The call that snippets make."""

    gateway: str
    """The gateway's URL as the reader's browser has it, without a trailing slash."""
    endpoint: Endpoint
    call: PlaygroundCall

    @property
    def model(self) -> str:
        """The model name, with the input type as a suffix for clients that have no parameter for it."""
        input_type = self.call.input_type if isinstance(self.call, Embed) else None
        suffix = _MODEL_SUFFIXES.get(input_type, f":{input_type}") if input_type else ""
        return self.endpoint.name + suffix

    def variables(self) -> dict[str, Any]:
        """What the templates know."""
        call, kind, url = self.call, _KINDS[type(self.call)], urlsplit(self.gateway)
        variables = {
            "key": KEY,
            "kind": kind,
            "name": self.endpoint.name,
            "task": str(self.endpoint.task),
            "model": self.model,
            "gateway": self.gateway,
            "gateway_with_port": self.gateway if url.port else f"{self.gateway}:{_DEFAULT_PORTS[url.scheme]}",
            "endpoint_url": f"{self.gateway}/hf/{self.model}",
            "path": _PATHS.get(kind, f"/_inference/sparse_embedding/{self.model}"),
            "streamed": kind in {"chat", "text"},
            "registration": self._registration(),
        }
        if isinstance(call, Chat | Complete):
            return variables | self._generation(call)
        texts = list(call.texts)
        if isinstance(call, Embed):
            dimensions = {"dimensions": call.dimensions} if call.dimensions else {}
            body = {"model": self.model, "input": texts, **dimensions}
            variables |= {"input_type": call.input_type, "dimensions": call.dimensions}
        elif isinstance(call, Rerank):
            raw = {"raw_scores": True} if call.raw_scores else {}
            body = {"model": self.model, "query": call.query, "documents": texts, **raw}
            variables["query"] = call.query
        else:
            body = {"input": texts}
        return variables | {"texts": texts, "body": body}

    def _generation(self, call: Chat | Complete) -> dict[str, Any]:
        """The variables of a call that generates text."""
        parameters = {name: msgspec.json.decode(raw) for name, raw in call.fields.items()}
        prompt = call.prompt if isinstance(call, Complete) else None
        messages = parameters.pop("messages", [{"role": "user", "content": prompt}])
        asked = {"messages": messages} if prompt is None else {"prompt": prompt}
        tgi = {name: value for name, value in parameters.items() if name != "max_tokens"}
        if "max_tokens" in parameters:
            tgi["max_new_tokens"] = parameters["max_tokens"]
        return {
            "prompt": prompt,
            "messages": messages,
            "parameters": parameters,
            "tgi_parameters": tgi,
            "elastic_parameters": {
                name: parameters[ours] for ours, name in _ELASTIC_CHAT.items() if ours in parameters
            },
            "body": {"model": self.model, **asked, **parameters, "stream": True},
        }

    def _registration(self) -> dict[str, Any]:
        """The body with which Elasticsearch registers hubgate as if it were Hugging Face."""
        url = f"{self.gateway}/hf/{self.endpoint.name}"
        if isinstance(self.call, Chat | Complete):
            url += "/v1/chat/completions"
        body: dict[str, Any] = {"service": "hugging_face", "service_settings": {"api_key": KEY, "url": url}}
        if self.endpoint.task in {Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING}:
            body["chunking_settings"] = (self.endpoint.chunking or DEFAULT_CHUNKING).as_dict()
        return body


_CLIENTS: Mapping[str, tuple[str, tuple[type[PlaygroundCall], ...]]] = {
    "curl": ("curl", (Embed, SparseEmbed, Rerank, Chat, Complete)),
    "openai": ("Python · openai", (Embed, Rerank, Chat, Complete)),
    "elasticsearch": ("Python · elasticsearch", (Embed, SparseEmbed, Rerank, Chat, Complete)),
    "huggingface_hub": ("Python · huggingface_hub", (Embed, Chat, Complete)),
    "langchain": ("Python · LangChain", (Embed, Chat, Complete)),
    "fetch": ("JavaScript · fetch", (Embed, SparseEmbed, Rerank, Chat, Complete)),
    "huggingface_js": ("JavaScript · @huggingface/inference", (Embed, Chat, Complete)),
    "dify": ("Dify", (Embed, Rerank, Chat, Complete)),
    "kibana": ("Elasticsearch · Kibana", (Embed, SparseEmbed, Rerank, Chat, Complete)),
}
"""By name of the template: the title, and the calls that the client can make."""
_DIFY_TYPES = {
    Task.TEXT_EMBEDDING: "Text Embedding",
    Task.RERANK: "Rerank",
    Task.COMPLETION: "LLM",
    Task.CHAT_COMPLETION: "LLM",
}
_DIFY_CHINESE = {
    "Model Name": "模型名称",
    "Completion mode": "对话类型",
    "Chat": "对话",
    "Completion": "补全",
    "Model context size": "模型上下文长度",
    "Model max chunks per batch": "模型每批的最大分块数",
}
"""Dify's own translations; the rest of its form is in English in every language."""
_DIFY_CHUNKS_PER_BATCH = 32


def snippets(context: SnippetContext, *, chinese: bool = False) -> list[Snippet]:
    """The call for every client that can make it.

    Args:
        context: the call.
        chinese: whether the reader's Dify is in Chinese.
    """
    variables = context.variables()
    rendered = []
    for client, (title, calls) in _CLIENTS.items():
        if not isinstance(context.call, calls) or _lacks_route(client, context):
            continue
        if client == "dify":
            rendered.append(Snippet(client, title, "", _dify_fields(context, chinese=chinese)))
        else:
            code = _templates().get_template(f"{client}.jinja").render(variables)
            rendered.append(Snippet(client, title, code))
    return rendered


def _lacks_route(client: str, context: SnippetContext) -> bool:
    """Whether Elasticsearch has no API for this call: it cannot complete a text with a chat model."""
    endpoint = context.endpoint
    if not isinstance(context.call, Complete):
        return False
    return (client == "elasticsearch" and endpoint.task is Task.CHAT_COMPLETION) or (
        client == "kibana" and endpoint.facts.chats is False
    )


def _dify_fields(context: SnippetContext, *, chinese: bool) -> list[tuple[str, str]]:
    """The form of Dify's provider OpenAI-API-compatible, at its version of 2026-08."""
    endpoint = context.endpoint
    fields = [
        ("Model Type", _DIFY_TYPES[endpoint.task]),
        ("Model Name", context.model),
        ("API Key", KEY),
        ("API Base URL", f"{context.gateway}/v1"),
    ]
    if isinstance(context.call, Chat | Complete):
        fields.append(("Completion mode", "Chat" if isinstance(context.call, Chat) else "Completion"))
    if limit := endpoint.token_limit:
        fields.append(("Model context size", str(limit)))
    if endpoint.task is Task.TEXT_EMBEDDING:
        fields.append(("Model max chunks per batch", str(_DIFY_CHUNKS_PER_BATCH)))
    if not chinese:
        return fields
    return [(_DIFY_CHINESE.get(name, name), _DIFY_CHINESE.get(value, value)) for name, value in fields]


def _json(value: object, indent: int = 0) -> str:
    """A value as JSON and JavaScript; its lines after the first are indented. Texts never span lines."""
    return json.dumps(value, ensure_ascii=False, indent=2).replace("\n", "\n" + " " * indent)


def _python(value: object, indent: int = 4) -> str:
    """A value as a Python literal, whose last line is at `indent`. Python reads JSON's strings."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        if len(value) < 3:
            return "{" + ", ".join(f"{_python(name)}: {_python(part)}" for name, part in value.items()) + "}"
        opened, closed = "{", "}"
        parts = [f"{_python(name)}: {_python(part, indent + 4)}" for name, part in value.items()]
    elif isinstance(value, list):
        opened, closed = "[", "]"
        parts = [_python(part, indent + 4) for part in value]
    else:
        return repr(value)
    if not parts:
        return opened + closed
    lines = "".join(f"\n{' ' * (indent + 4)}{part}," for part in parts)
    return f"{opened}{lines}\n{' ' * indent}{closed}"


def _arguments(values: Mapping[str, object]) -> str:
    """Keyword arguments of a Python call, one per line."""
    return "\n".join(f"    {name}={_python(value)}," for name, value in values.items())


def _extra_body(parameters: Mapping[str, object]) -> dict[str, object]:
    """The parameters as OpenAI's Python client takes them."""
    extra = {name: parameters[name] for name in _EXTRA_BODY if name in parameters}
    standard = {name: value for name, value in parameters.items() if name not in extra}
    return {**standard, "extra_body": extra} if extra else standard


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - only the console needs it

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1] / "templates" / "snippets"),
        autoescape=False,  # noqa: S701 - this is code, not HTML; the filters quote every value
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        arguments=_arguments, extra_body=_extra_body, json=_json, python=_python, shell=shlex.quote
    )
    return environment
