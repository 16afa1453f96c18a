"""How each family of servers is asked for text: bodies from `Chat` and `Complete`.

A parameter that a server would pass over in silence is refused here, by name; one that it refuses itself is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hubgate.domain.calls import Chat, Complete
from hubgate.upstreams.engines.requests import raw_fields as raw
from hubgate.upstreams.engines.requests.response_format import Schemas, schema_in

_TGI_ALONE = frozenset(
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
_UNHEARD = frozenset({"details", "do_sample", "return_full_text"})
"""What the gate itself sees to, whatever the caller says."""
_SAMPLES = frozenset({"temperature", "top_k", "top_p", "typical_p"})
_ALWAYS_COUNT = {"stream": raw.TRUE, "stream_options": b'{"include_usage":true}'}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIBodies:
    """OpenAI's routes, as one kind of server takes them."""

    server: str
    """What it is called in messages."""
    named: bool = True
    """It wants the name of its model."""
    schemas: Schemas = Schemas.OPENAI
    renames: Mapping[str, str] = field(default_factory=dict)
    """Parameters that it knows by another name."""
    listed_stop: bool = False
    """It takes `stop` as a list alone."""

    def chat(self, call: Chat, model: str | None, *, stream: bool) -> bytes:
        """`POST /v1/chat/completions`."""
        fields = raw.renamed(call.fields, self.renames)
        if "messages" in fields:
            fields["messages"] = raw.without_nulls(fields["messages"])
        return self._body(fields, model, stream=stream)

    def complete(self, call: Complete, model: str | None, *, stream: bool) -> bytes:
        """`POST /v1/completions`. Without sampling is at temperature 0, as OpenAI says it."""
        wanted = raw.renamed(raw.said(call.fields), self.renames)
        if wanted.get("do_sample") == raw.FALSE and not _SAMPLES & wanted.keys():
            wanted["temperature"] = b"0"
        if schema_in(wanted.get("grammar", b"")):
            wanted["response_format"] = wanted.pop("grammar")
        refused = {name for name in _TGI_ALONE & wanted.keys() if not raw.is_off(name, wanted[name])}
        if refused:
            raise raw.unknown(self.server, refused)
        kept = {name: value for name, value in wanted.items() if name not in _TGI_ALONE | _UNHEARD}
        return self._body({"prompt": raw.json_text(call.prompt), **kept}, model, stream=stream)

    def _body(self, fields: Mapping[str, bytes], model: str | None, *, stream: bool) -> bytes:
        body = {"model": raw.json_text(model), **fields} if model and self.named else dict(fields)
        if "response_format" in body:
            body["response_format"] = self.schemas.respelled(body["response_format"])
        if self.listed_stop and "stop" in body:
            body["stop"] = raw.listed(body["stop"])
        return raw.json_object(body | _ALWAYS_COUNT if stream else body)


_TGI_KNOWS = frozenset(
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
_TGI_DEAF = frozenset({"details", "echo", "model", "return_full_text", "user"})


def tgi(call: Complete, model: str | None, *, stream: bool) -> bytes:  # noqa: ARG001 - it serves one model
    """`POST /generate` and `/generate_stream`: it passes over what it does not know. Details bring the tokens."""
    return raw.json_object(_tgi_body(call))


def tgi_root(call: Complete, model: str | None, *, stream: bool) -> bytes:  # noqa: ARG001
    """The same at `POST /`, where the body says whether to stream."""
    return raw.json_object(_tgi_body(call) | {"stream": raw.TRUE if stream else raw.FALSE})


def _tgi_body(call: Complete) -> dict[str, bytes]:
    wanted = raw.renamed(raw.said(call.fields), _TGI_NAMES)
    unknown = {
        name
        for name, value in wanted.items()
        if name not in _TGI_KNOWS | _TGI_DEAF and not raw.is_off(name, value)
    }
    if unknown:
        raise raw.unknown("text-generation-inference", unknown)
    parameters = {name: value for name, value in wanted.items() if name in _TGI_KNOWS}
    if _is_zero(parameters.get("temperature")):
        del parameters["temperature"]  # it wants none rather than 0, and then takes the likeliest token
    if parameters.get("top_n_tokens") == b"0":
        del parameters["top_n_tokens"]
    if "stop" in parameters:
        parameters["stop"] = raw.listed(parameters["stop"])
    if "grammar" in parameters:
        parameters["grammar"] = Schemas.GRAMMAR.respelled(parameters["grammar"])
    parameters["return_full_text"] = raw.TRUE if call.full_text else raw.FALSE
    parameters["details"] = raw.TRUE
    return {"inputs": raw.json_text(call.prompt), "parameters": raw.json_object(parameters)}


def toolkit(call: Complete, model: str | None, *, stream: bool) -> bytes:  # noqa: ARG001
    """The toolkit's only route, for text-generation: unasked, it repeats the prompt."""
    return _toolkit_body(call, {"return_full_text": raw.FALSE})


def toolkit_text2text(call: Complete, model: str | None, *, stream: bool) -> bytes:  # noqa: ARG001
    """The same for text2text-generation, which never repeats the prompt and refuses to be asked not to."""
    return _toolkit_body(call, {})


def _toolkit_body(call: Complete, always: Mapping[str, bytes]) -> bytes:
    """What it does not know it refuses by name; `stop`, of which it has none, is heeded by the reader."""
    raw.stops_in(call.fields)
    parameters = {
        name: value
        for name, value in raw.renamed(raw.said(call.fields), {"max_tokens": "max_new_tokens"}).items()
        if name not in _TGI_DEAF | {"stop"} and (name in _SAMPLES or not raw.is_neutral(name, value))
    }
    if _is_zero(parameters.get("temperature")):
        del parameters["temperature"]
    elif _SAMPLES & parameters.keys():
        parameters.setdefault(
            "do_sample", raw.TRUE
        )  # unasked, it takes the likeliest token whatever they say
    body = {"inputs": raw.json_text(call.prompt), "parameters": raw.json_object({**parameters, **always})}
    return raw.json_object(body)


def _is_zero(value: bytes | None) -> bool:
    try:
        return value is not None and float(value) == 0
    except ValueError:
        return False
