"""The servers that write, one row each: where they take what, how they spell it, and what their replies hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from hubgate.domain.calls import Chat, Complete, GenerationCall, WireFormat
from hubgate.domain.endpoint import Engine
from hubgate.upstreams.engines.replies.causes import PINNED, REPEATS_PROMPT
from hubgate.upstreams.engines.requests import text as texts
from hubgate.upstreams.engines.requests.response_format import Schemas
from hubgate.upstreams.engines.requests.text import OpenAIBodies


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to ask for text."""

    route: str
    """Below the base URL."""
    body: Callable[..., bytes]
    """Writes its kind of call down: `(call, model, stream=…)`."""
    wire_format: WireFormat = WireFormat.OPENAI
    stream_route: str | None = None
    """Where another takes what is to be streamed."""
    streams: bool = True
    puts_prompt_before: bool = False
    """It does so itself where `Complete.full_text` is asked."""
    stops: bool = True
    """It heeds `stop`."""
    model: str | None = None
    """What the model is called there, if it has a name of its own."""
    instead: tuple[str, Form] | None = None
    """A sign in a refusal (see `causes.SIGNS`) that this other form is the right one."""


Forms: TypeAlias = "Mapping[type[GenerationCall], Form]"
"""How each kind of call is asked; of a kind that is not in it, the server knows nothing."""
CHAT_ROUTE, COMPLETIONS_ROUTE = "/v1/chat/completions", "/v1/completions"
_OLD_LIMIT = {"max_completion_tokens": "max_tokens"}


def openai_forms(bodies: OpenAIBodies) -> Forms:
    """OpenAI's two routes."""
    return {
        Chat: Form(route=CHAT_ROUTE, body=bodies.chat),
        Complete: Form(route=COMPLETIONS_ROUTE, body=bodies.complete),
    }


def _transformers() -> Forms:
    """It is often pinned to a model that it calls by a name which it does not tell: then none is right."""
    bodies = OpenAIBodies(server="transformers serve", renames=_OLD_LIMIT)
    pinned = openai_forms(replace(bodies, named=False))
    forms = openai_forms(bodies)
    return {kind: replace(form, instead=(PINNED, pinned[kind])) for kind, form in forms.items()}


_TGI_CHAT = OpenAIBodies(
    server="text-generation-inference",
    named=False,
    schemas=Schemas.TGI,
    renames=_OLD_LIMIT,
    listed_stop=True,
)
_TOOLKIT = Form(route="", body=texts.toolkit, wire_format=WireFormat.TGI, streams=False, stops=False)
_TEXT2TEXT = replace(_TOOLKIT, body=texts.toolkit_text2text)

WRITERS: Mapping[Engine, Forms] = {
    Engine.VLLM: openai_forms(OpenAIBodies(server="vLLM", renames={"truncate": "truncate_prompt_tokens"})),
    Engine.SGLANG: openai_forms(OpenAIBodies(server="SGLang")),
    Engine.LLAMACPP: openai_forms(
        OpenAIBodies(server="llama.cpp", renames=_OLD_LIMIT | {"repetition_penalty": "repeat_penalty"})
    ),
    Engine.TRANSFORMERS: _transformers(),
    Engine.OPENAI: openai_forms(OpenAIBodies(server="one with OpenAI's routes")),
    Engine.TGI: {
        Chat: Form(route=CHAT_ROUTE, body=_TGI_CHAT.chat),
        Complete: Form(
            route="/generate",
            stream_route="/generate_stream",
            body=texts.tgi,
            wire_format=WireFormat.TGI,
            puts_prompt_before=True,
        ),
    },
    Engine.TOOLKIT: {Complete: replace(_TOOLKIT, instead=(REPEATS_PROMPT, _TEXT2TEXT))},
}
