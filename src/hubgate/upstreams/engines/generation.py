"""Requests for generated text: how each family of servers takes `Chat` and `Complete`.

A parameter that a server would silently ignore is refused here, by name; one that the server itself refuses is passed on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from hubgate.domain.calls import Chat, Complete, GenerationCall, WireFormat
from hubgate.upstreams.engines import json_fields as raw
from hubgate.upstreams.engines.response_format import Schemas, schema_in

OPENAI_CHAT, OPENAI_COMPLETIONS = "/v1/chat/completions", "/v1/completions"
OPENAI_RESPONSES = "/v1/responses"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRoute:
    """One route for generated text: its path and the formats of its request and reply."""

    path: str
    """Below the base URL."""
    body: Callable[..., bytes]
    """Writes the request body: `(call, model, stream=…)`."""
    wire_format: WireFormat = WireFormat.OPENAI
    """Of the reply."""
    stream_path: str | None = None
    """The path for streamed replies, if it is another one."""
    streams: bool = True
    returns_prompt: bool = False
    """It repeats the prompt before the text if `Complete.full_text` is set."""
    supports_stop: bool = True
    model: str | None = None
    """The server's own name of the model, if it has one."""
    fallback: tuple[str, GenerationRoute] | None = None
    """A marker in an error reply (see `causes.MARKERS`), and the route to use instead if a reply has it."""
    responses: ResponsesRoute | None = None
    """The server's own route for OpenAI's Responses API, beside that for chats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesRoute:
    """A server's own `/v1/responses`."""

    route: GenerationRoute
    fields: frozenset[str]
    """The fields of a request that it honours. A request with another one is sent as a chat."""


GenerationRoutes: TypeAlias = "Mapping[type[GenerationCall], GenerationRoute]"
"""The route of each kind of call that a server supports."""

_TGI_ONLY = frozenset(
    {
        "adapter_id",
        "decoder_input_details",
        "grammar",
        "top_n_tokens",
        "truncate",
        "typical_p",
        "watermark",
    }
)
_SET_BY_GATEWAY = frozenset({"details", "do_sample", "return_full_text"})
_SAMPLING = frozenset({"temperature", "top_k", "top_p", "typical_p"})
_STREAMED = {"stream": raw.TRUE, "stream_options": b'{"include_usage":true}'}
LEGACY_LIMIT = {"max_completion_tokens": "max_tokens"}
"""For servers that know only OpenAI's older name of the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIBodies:
    """The request bodies of OpenAI's routes, as one kind of server takes them."""

    server: str
    """Its name in messages."""
    sends_model: bool = True
    schemas: Schemas = Schemas.OPENAI
    renames: Mapping[str, str] = field(default_factory=dict)
    """Parameters that have another name there."""
    stop_as_list: bool = False
    """It takes `stop` only as a list."""
    ignored_in_chats: frozenset[str] = frozenset()
    """Parameters that it ignores silently, and that would change the reply."""
    ignored_in_completions: frozenset[str] = frozenset()
    """The same of a completion."""
    responses: frozenset[str] = frozenset()
    """The fields of a request that its own `/v1/responses` honours; empty if it has no such route."""

    def routes(self) -> GenerationRoutes:
        """OpenAI's two routes."""
        native = GenerationRoute(path=OPENAI_RESPONSES, body=self.respond, wire_format=WireFormat.RESPONSES)
        responses = ResponsesRoute(route=native, fields=self.responses) if self.responses else None
        return {
            Chat: GenerationRoute(path=OPENAI_CHAT, body=self.chat, responses=responses),
            Complete: GenerationRoute(path=OPENAI_COMPLETIONS, body=self.complete),
        }

    def chat(self, call: Chat, model: str | None, *, stream: bool) -> bytes:
        """`POST /v1/chat/completions`."""
        fields = call.fields
        if not self.ignored_in_chats.isdisjoint(fields):
            self._refuse(self.ignored_in_chats, fields)
        if self.renames and not self.renames.keys().isdisjoint(fields):
            fields = raw.rename(fields, self.renames)
        messages = fields.get("messages", b"")
        if messages.find(raw.NULL) >= 0:
            fields = {**fields, "messages": raw.without_nulls(messages)}
        return self._body(fields, model, stream=stream)

    def respond(self, call: Chat, model: str | None, *, stream: bool) -> bytes:
        """`POST /v1/responses`: nothing is to be stored."""
        fields = {"model": raw.encode(model)} if model else {}
        fields |= call.responses or {}
        return raw.json_object(fields | {"store": raw.FALSE, "stream": raw.TRUE if stream else raw.FALSE})

    def complete(self, call: Complete, model: str | None, *, stream: bool) -> bytes:
        """`POST /v1/completions`. TGI's `do_sample: false` becomes temperature 0."""
        fields = raw.rename(raw.without_null_fields(call.fields), self.renames)
        if fields.get("do_sample") == raw.FALSE and not _SAMPLING & fields.keys():
            fields["temperature"] = b"0"
        if schema_in(fields.get("grammar", b"")):
            fields["response_format"] = fields.pop("grammar")
        self._refuse(_TGI_ONLY | self.ignored_in_completions, fields)
        kept = {name: value for name, value in fields.items() if name not in _TGI_ONLY | _SET_BY_GATEWAY}
        return self._body({"prompt": raw.encode(call.prompt), **kept}, model, stream=stream)

    def _refuse(self, names: frozenset[str], fields: Mapping[str, bytes]) -> None:
        refused = {
            name
            for name in names & fields.keys()
            if fields[name] != raw.NULL and not raw.is_noop(name, fields[name])
        }
        if refused:
            raise raw.unsupported_parameters(self.server, refused)

    def _body(self, fields: Mapping[str, bytes], model: str | None, *, stream: bool) -> bytes:
        body = {"model": _encoded(model), **fields} if model and self.sends_model else dict(fields)
        if "response_format" in body:
            body["response_format"] = self.schemas.convert(body["response_format"])
        if self.stop_as_list and "stop" in body:
            body["stop"] = raw.as_list(body["stop"])
        if stream:
            body |= _STREAMED
        return raw.json_object(body)


_TGI_PARAMETERS = frozenset(
    {
        "adapter_id",
        "best_of",
        "decoder_input_details",
        "do_sample",
        "frequency_penalty",
        "grammar",
        "max_new_tokens",
        "repetition_penalty",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_n_tokens",
        "top_p",
        "truncate",
        "typical_p",
        "watermark",
    }
)
_TGI_NAMES = {"max_tokens": "max_new_tokens", "logprobs": "top_n_tokens", "response_format": "grammar"}
_TGI_DROPPED = frozenset({"details", "echo", "model", "return_full_text", "user"})


def tgi_body(call: Complete, model: str | None, *, stream: bool) -> bytes:  # noqa: ARG001 - it serves one model
    """`POST /generate` and `/generate_stream`."""
    return raw.json_object(_tgi_fields(call))


def tgi_root_body(call: Complete, model: str | None, *, stream: bool) -> bytes:  # noqa: ARG001
    """`POST /`, the same with a field that asks for a stream."""
    return raw.json_object(_tgi_fields(call) | {"stream": raw.TRUE if stream else raw.FALSE})


def _tgi_fields(call: Complete) -> dict[str, bytes]:
    fields = raw.rename(raw.without_null_fields(call.fields), _TGI_NAMES)
    ignored = {  # silently, if they were passed on
        name
        for name, value in fields.items()
        if name not in _TGI_PARAMETERS | _TGI_DROPPED and not raw.is_noop(name, value)
    }
    if ignored:
        raise raw.unsupported_parameters("text-generation-inference", ignored)
    parameters = {name: value for name, value in fields.items() if name in _TGI_PARAMETERS}
    if _is_zero(parameters.get("temperature")):
        del parameters["temperature"]  # it refuses 0; without a temperature it takes the most likely token
    if parameters.get("top_n_tokens") == b"0":
        del parameters["top_n_tokens"]
    if "stop" in parameters:
        parameters["stop"] = raw.as_list(parameters["stop"])
    if "grammar" in parameters:
        parameters["grammar"] = Schemas.GRAMMAR.convert(parameters["grammar"])
    parameters["return_full_text"] = raw.TRUE if call.full_text else raw.FALSE
    parameters["details"] = raw.TRUE  # which contain the token counts
    return {"inputs": raw.encode(call.prompt), "parameters": raw.json_object(parameters)}


def toolkit_body(call: Complete, model: str | None, *, stream: bool) -> bytes:  # noqa: ARG001
    """The toolkit's only route, for text-generation: by default it repeats the prompt."""
    return _toolkit_body(call.fields, raw.encode(call.prompt), {"return_full_text": raw.FALSE})


def toolkit_text2text_body(call: Complete, model: str | None, *, stream: bool) -> bytes:  # noqa: ARG001
    """The same for text2text-generation, which never repeats the prompt and refuses `return_full_text`."""
    return _toolkit_body(call.fields, raw.encode(call.prompt), {})


def toolkit_chat_body(call: Chat, model: str | None, *, stream: bool) -> bytes:  # noqa: ARG001
    """The same for a chat: text-generation applies the model's chat template to a list of messages."""
    messages = raw.without_nulls(call.fields.get("messages", raw.NULL))
    fields = {name: value for name, value in call.fields.items() if name != "messages"}
    return _toolkit_body(fields, messages, {"return_full_text": raw.FALSE})


def _toolkit_body(given: Mapping[str, bytes], inputs: bytes, extra: Mapping[str, bytes]) -> bytes:
    """It refuses unknown parameters by name. It has no `stop`: the gateway cuts the reply at stop sequences."""
    raw.stop_sequences(given)
    limits = dict.fromkeys(("max_tokens", "max_completion_tokens"), "max_new_tokens")
    fields = raw.rename(raw.without_null_fields(given), limits)
    parameters = {
        name: value
        for name, value in fields.items()
        if name not in _TGI_DROPPED | {"stop"} and (name in _SAMPLING or not raw.is_known_noop(name, value))
    }
    if _is_zero(parameters.get("temperature")):
        del parameters["temperature"]
    elif _SAMPLING & parameters.keys():
        # Unless do_sample is set, it takes the most likely token regardless of the other parameters.
        parameters.setdefault("do_sample", raw.TRUE)
    return raw.json_object({"inputs": inputs, "parameters": raw.json_object({**parameters, **extra})})


@functools.lru_cache(maxsize=1024)
def _encoded(model: str) -> bytes:
    return raw.encode(model)


def _is_zero(value: bytes | None) -> bool:
    try:
        return value is not None and float(value) == 0
    except ValueError:
        return False
