"""Every route of the product, with bodies that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from odd_requests import Template
from starlette.routing import Route

from hubgate.web.http.face import InferenceRoute

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from running_gateway import RunningGateway

_TEXTS: tuple[Mapping[str, Any], ...] = (
    {
        "model": "e5",
        "input": ["a text", "another"],
        "encoding_format": "float",
        "dimensions": 4,
        "user": "me",
    },
    {
        "inputs": ["a text"],
        "truncate": True,
        "normalize": True,
        "prompt_name": "query",
        "truncation_direction": "Right",
    },
    {"input": "a text", "input_type": "search", "task_settings": {}, "inference_config": {}},
)
_RANKED: tuple[Mapping[str, Any], ...] = (
    {
        "model": "ranker",
        "query": "q",
        "documents": ["a", {"text": "b"}],
        "top_n": 1,
        "return_documents": True,
    },
    {"query": "q", "texts": ["a", "b"], "raw_scores": False, "return_text": True, "truncate": True},
    {"query": "q", "input": ["a", "b"], "top_n": 1, "task_settings": {"return_documents": True}},
    {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {}},
    {"inputs": [["a", "b"], ["a", "c"]]},
)
_CHAT: Mapping[str, Any] = {
    "model": "chat",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "x"},
    ],
    "stream": False,
    "stream_options": {"include_usage": True},
    "max_tokens": 5,
    "temperature": 0.5,
    "stop": ["."],
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    ],
    "tool_choice": "auto",
    "logprobs": True,
    "top_logprobs": 2,
    "n": 1,
    "seed": 1,
}
_RESPONSE: Mapping[str, Any] = {
    "model": "chat",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}],
        },
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "x"},
    ],
    "max_output_tokens": 5,
    "include": ["message.output_text.logprobs"],
    "reasoning": {"effort": "low"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    "tool_choice": {"type": "function", "name": "f"},
    "store": False,
}
_WRITTEN: tuple[Mapping[str, Any], ...] = (
    _CHAT,
    {**_CHAT, "stream": True},
    {
        "model": "text",
        "prompt": ["Once"],
        "max_tokens": 4,
        "echo": False,
        "logprobs": 1,
        "best_of": 1,
        "suffix": None,
    },
    {
        "inputs": "Once",
        "parameters": {
            "max_new_tokens": 4,
            "details": True,
            "stop": ["x"],
            "grammar": {"type": "json", "value": {}},
        },
        "stream": True,
    },
)
ELASTIC_ENDPOINT = {
    "service": "hugging_face",
    "service_settings": {
        "api_key": "hf_x",
        "url": "http://127.0.0.1:9/",
        "rate_limit": {"requests_per_minute": 60},
    },
    "chunking_settings": {"strategy": "sentence", "max_chunk_size": 100, "sentence_overlap": 1},
    "task_settings": {"return_documents": True, "top_n": 1},
}
CONSOLE_FORM = {
    "source": "fake",
    "name": "from-form",
    "task": "text_embedding",
    "url": "http://127.0.0.1:9/",
    "model": "a/b",
    "token": "hf_x",
    "requests_per_minute": "60",
    "strategy": "sentence",
    "max_chunk_size": "100",
    "text": "a text",
    "input": "a text\nanother",
    "language": "fa",
    "theme": "dark",
    "key": "hg_x",
    "scope": "some",
    "endpoints": "e5",
    "document": "endpoints: []",
    "question": "q",
    "messages": "[]",
    "expires": "2027-01-01",
}
CALLED = {
    "e5": _TEXTS,
    "sparse": _TEXTS,
    "ranker": _RANKED,
    "chat": (_CHAT, {**_CHAT, "stream": True}, _RESPONSE, {**_RESPONSE, "stream": True}),
    "text": _WRITTEN,
}
"""What each endpoint is asked."""


def every_route(gateway: RunningGateway, csrf: str) -> Sequence[Template]:
    """What the running gateway serves, read off its route table and its OpenAPI document.

    Args:
        gateway: the gateway.
        csrf: the form token of a console session.
    """
    routes = gateway.app._app.routes  # type: ignore[attr-defined]
    paths = {route.path or "/": None for route in routes if isinstance(route, InferenceRoute)}
    found = [
        Template("POST", path.replace("{name}", name), bodies)
        for path in paths
        for name, bodies in CALLED.items()
    ]
    documented = gateway.request("GET", "/api/openapi.json").json()["paths"]
    for route in (route for route in routes if isinstance(route, Route)):
        for method in sorted(route.methods or {"GET"}):
            path = route.path.replace(":path", "")
            if path.startswith("/api/"):
                body = documented[path].get(method.lower(), {}).get("requestBody", {"content": {"": {}}})
                [content, *_] = body["content"].values()
                found.append(Template(method, path, [content["example"]] if "example" in content else []))
            elif path.startswith("/ui"):
                found.append(Template(method, path, [{**CONSOLE_FORM, "csrf": csrf}], form=True))
            else:
                found.append(Template(method, path, [ELASTIC_ENDPOINT] if method == "PUT" else []))
    return [template for template in found if template.path != "/ui/sign-out"]
