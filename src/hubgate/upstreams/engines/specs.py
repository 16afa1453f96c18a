"""One row for everything about an engine: how it is recognised, which routes it has, and what it supports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hubgate.domain.calls import (
    TASK_OF_CALL,
    Chat,
    Complete,
    Embed,
    Rerank,
    SparseEmbed,
    Tokenize,
    WireFormat,
)
from hubgate.domain.endpoint import Endpoint, Engine, Task
from hubgate.upstreams.engines import descriptions, embeddings, generation, rerank
from hubgate.upstreams.engines.descriptions import DetectedServer
from hubgate.upstreams.engines.embeddings import OPENAI_EMBEDDINGS, EmbedRoute
from hubgate.upstreams.engines.generation import (
    LEGACY_LIMIT,
    OPENAI_CHAT,
    GenerationRoute,
    GenerationRoutes,
    OpenAIBodies,
)
from hubgate.upstreams.engines.replies.causes import PINNED, REPEATS_PROMPT
from hubgate.upstreams.engines.rerank import COHERE_RERANK, RerankRoute
from hubgate.upstreams.engines.response_format import Schemas
from hubgate.upstreams.engines.routes import ReportedTokens, TextRoute
from hubgate.upstreams.engines.token_routes import SparseRoute, TokenizeRoute
from hubgate.upstreams.engines.toolkit import TOOLKIT_EMBED, toolkit_details
from hubgate.upstreams.json_values import field_of, text_of
from hubgate.upstreams.server import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """One engine."""

    title: str
    """In messages."""
    read_info: Callable[[Mapping[str, Any]], DetectedServer | None] | None = None
    """Reads the reply to `GET /info`, if the engine has that route; `None` for another engine's reply."""
    owned_by: str | None = None
    """Its `owned_by` in OpenAI's list of models."""
    health: object = None
    """Its reply to `GET /health`, decoded if it is JSON, for engines that do not describe themselves anywhere."""
    details: Callable[[DetectedServer, Endpoint, Server], Awaitable[DetectedServer]] | None = None
    """Requests more once the engine is recognised."""
    loads_models: bool = False
    """It loads a model that it does not list when it is called."""
    lists_capabilities: bool = False
    """Its list of models reports the capabilities of each."""
    image_keys: frozenset[str] = frozenset()
    """Its keys of `model.image` at Inference Endpoints, in lower case."""
    image_word: str | None = None
    """A word in the names of its container images."""
    auto_truncate: bool | None = None
    """What it does with texts that are too long, if it does not report it: truncate or refuse them."""
    max_batch_texts: int | None = None
    """Its limit of texts in a request, if it is fixed and not reported."""
    max_concurrent_texts: int | None = None
    """Texts in flight beyond which it refuses requests."""
    adds_default_prompt: bool = False
    """It runs sentence-transformers, which adds a model's default prompt to every text."""
    embed: EmbedRoute | None = None
    rerank: RerankRoute | None = None
    sparse: SparseRoute | None = None
    tokenize: TokenizeRoute | None = None
    generation: GenerationRoutes = field(default_factory=dict)

    def text_routes(self, model: str | None, raw_scores: bool | None = None) -> Mapping[type, TextRoute]:
        """The route of each kind of call about texts, for a model with these facts."""
        routes: dict[type, TextRoute | None] = {
            Embed: self.embed,
            Rerank: self.rerank.for_model(model, raw_scores) if self.rerank else None,
            SparseEmbed: self.sparse,
            Tokenize: self.tokenize,
        }
        return {call: route for call, route in routes.items() if route is not None}

    @property
    def tasks(self) -> frozenset[Task]:
        """The tasks that it can do, with the right model."""
        calls = {*self.text_routes(None), *self.generation}
        return frozenset(TASK_OF_CALL[call] for call in calls & TASK_OF_CALL.keys())


_IGNORED = frozenset({"logprobs", "n", "presence_penalty"})
"""By transformers 5.24, which logs a warning. It passes tools to the chat template."""


def _pinned_or_named() -> GenerationRoutes:
    """`transformers serve` may be pinned to a model whose name it does not report, and then refuses any name."""
    named = OpenAIBodies(
        server="transformers serve",
        renames=LEGACY_LIMIT,
        ignored_in_chats=_IGNORED
        | {
            *("audio", "function_call", "functions", "modalities", "parallel_tool_calls", "reasoning_effort"),
            *("response_format", "tool_choice", "top_logprobs", "web_search_options"),
        },
        ignored_in_completions=_IGNORED | {"best_of", "echo", "logit_bias"},
    )
    pinned = replace(named, sends_model=False).routes()
    return {call: replace(route, fallback=(PINNED, pinned[call])) for call, route in named.routes().items()}


_TGI_CHAT = OpenAIBodies(
    server="text-generation-inference",
    sends_model=False,
    schemas=Schemas.TGI,
    renames=LEGACY_LIMIT,
    stop_as_list=True,
)
_TOOLKIT_COMPLETE = GenerationRoute(
    path="",
    body=generation.toolkit_body,
    wire_format=WireFormat.TGI,
    streams=False,
    supports_stop=False,
)
_DIMENSIONS = frozenset({"dimensions"})
_RESPONSES = frozenset(
    {"input", "instructions", "max_output_tokens", "metadata", "reasoning", "temperature", "top_p", "user"}
)
"""What every version with OpenAI's Responses API honours. Tools and formats came later, or are ignored; a chat has them."""

SPECS: Mapping[Engine, EngineSpec] = {
    Engine.TEI: EngineSpec(
        title="text-embeddings-inference",
        read_info=descriptions.tei_info,
        image_keys=frozenset({"tei"}),
        image_word="text-embeddings-inference",
        max_concurrent_texts=512,  # the default of its --max-concurrent-requests, which counts texts
        embed=EmbedRoute(
            path="/embed",
            body=embeddings.tei_body,
            options=frozenset({"normalize", "prompt_name", "dimensions", "truncate_left"}),
            reported_tokens=ReportedTokens.EXACT,
        ),
        rerank=RerankRoute(
            path="/rerank", body=rerank.tei_body, reported_tokens=ReportedTokens.EXACT, raw=None
        ),
        sparse=SparseRoute(path="/embed_sparse", tei=True),
        tokenize=TokenizeRoute(path="/tokenize"),
    ),
    Engine.VLLM: EngineSpec(
        title="vLLM",
        owned_by="vllm",
        details=descriptions.vllm_details,
        image_keys=frozenset({"vllm", "vllmneuron"}),
        image_word="vllm",
        auto_truncate=False,
        embed=EmbedRoute(
            path=OPENAI_EMBEDDINGS,
            body=embeddings.vllm_body,
            options=_DIMENSIONS,
            reported_tokens=ReportedTokens.EXACT,
        ),
        rerank=RerankRoute(
            path=COHERE_RERANK,
            body=rerank.vllm_body,
            reported_tokens=ReportedTokens.EXACT,
            instruction_field="instruction",
        ),
        generation=OpenAIBodies(
            server="vLLM", renames={"truncate": "truncate_prompt_tokens"}, responses=_RESPONSES
        ).routes(),
    ),
    Engine.SGLANG: EngineSpec(
        title="SGLang",
        owned_by="sglang",
        details=descriptions.sglang_details,
        image_keys=frozenset({"sglang"}),
        image_word="sglang",
        embed=EmbedRoute(path=OPENAI_EMBEDDINGS, body=embeddings.openai_body, options=_DIMENSIONS),
        rerank=RerankRoute(path=COHERE_RERANK, body=rerank.cohere_body, instruction_field="instruct"),
        generation=OpenAIBodies(server="SGLang", responses=_RESPONSES).routes(),
    ),
    Engine.LLAMACPP: EngineSpec(
        title="llama.cpp",
        owned_by="llamacpp",
        details=descriptions.llamacpp_details,
        image_keys=frozenset({"llamacpp"}),
        image_word="llama.cpp",
        auto_truncate=False,
        embed=EmbedRoute(
            path=OPENAI_EMBEDDINGS, body=embeddings.openai_body, reported_tokens=ReportedTokens.EXACT
        ),
        rerank=RerankRoute(
            path=COHERE_RERANK,
            body=rerank.cohere_body,
            reported_tokens=ReportedTokens.EXACT,
            raw=True,
            models_with_probabilities="qwen3",
            has_own_templates=True,
        ),
        generation=OpenAIBodies(
            server="llama.cpp", renames=LEGACY_LIMIT | {"repetition_penalty": "repeat_penalty"}
        ).routes(),
    ),
    Engine.TGI: EngineSpec(
        title="text-generation-inference",
        read_info=descriptions.tgi_info,
        image_keys=frozenset({"tgi", "tgineuron"}),
        image_word="text-generation-inference",
        generation={
            Chat: GenerationRoute(path=OPENAI_CHAT, body=_TGI_CHAT.chat),
            Complete: GenerationRoute(
                path="/generate",
                stream_path="/generate_stream",
                body=generation.tgi_body,
                wire_format=WireFormat.TGI,
                returns_prompt=True,
            ),
        },
    ),
    Engine.TRANSFORMERS: EngineSpec(
        title="transformers serve",
        health={"status": "ok"},
        loads_models=True,
        image_keys=frozenset({"hfserve"}),
        generation=_pinned_or_named(),
    ),
    Engine.INFINITY: EngineSpec(
        title="infinity",
        owned_by="infinity",
        lists_capabilities=True,
        image_word="infinity",
        auto_truncate=True,
        max_batch_texts=2048,
        embed=EmbedRoute(
            path=OPENAI_EMBEDDINGS,
            body=embeddings.openai_body,
            options=_DIMENSIONS,
            truncates_silently=True,
            reported_tokens=ReportedTokens.WRONG,
        ),
        rerank=RerankRoute(
            path=COHERE_RERANK,
            body=rerank.infinity_body,
            reported_tokens=ReportedTokens.WRONG,
            raw=None,
        ),
    ),
    Engine.TOOLKIT: EngineSpec(
        title="Hugging Face's toolkit, or a custom handler in it",
        health="Ok",
        details=toolkit_details,
        image_keys=frozenset({"huggingface", "huggingfaceneuron"}),
        adds_default_prompt=True,
        embed=TOOLKIT_EMBED,
        rerank=RerankRoute(path="", body=rerank.toolkit_body),
        sparse=SparseRoute(path=""),
        generation={
            Complete: replace(
                _TOOLKIT_COMPLETE,
                fallback=(REPEATS_PROMPT, replace(_TOOLKIT_COMPLETE, body=generation.toolkit_text2text_body)),
            ),
            Chat: replace(_TOOLKIT_COMPLETE, body=generation.toolkit_chat_body),
        },
    ),
    Engine.OPENAI: EngineSpec(
        title="a server with OpenAI's routes",
        embed=EmbedRoute(path=OPENAI_EMBEDDINGS, body=embeddings.openai_body, options=_DIMENSIONS),
        rerank=RerankRoute(path=COHERE_RERANK, body=rerank.cohere_body),
        generation=OpenAIBodies(server="one with OpenAI's routes").routes(),
    ),
    # Not behind a URL of their own: they have no routes here. For the providers' routes see `providers`.
    Engine.PROVIDER: EngineSpec(title="an Inference Provider"),
    Engine.OPENVINO: EngineSpec(title="OpenVINO"),
    Engine.FAKE: EngineSpec(title="a fake model"),
}


def spec_of(engine: Engine | None) -> EngineSpec:
    """The row of an engine; an empty one if it is not known."""
    return SPECS[engine] if engine else _UNKNOWN


_UNKNOWN = EngineSpec(title="an unknown server")


def engine_by_owner(owned_by: object) -> Engine:
    """The engine of an owner in OpenAI's list of models."""
    return next(
        (engine for engine, spec in SPECS.items() if owned_by and spec.owned_by == owned_by), Engine.OPENAI
    )


def engine_of_entry(entry: Mapping[str, Any]) -> Engine:
    """The engine of an entry in OpenAI's list of models."""
    engine = engine_by_owner(entry.get("owned_by"))
    # transformers serve 5.24 names the owner of the model's repository.
    has_state = text_of(field_of(entry, "status"), "value") in {"loaded", "unloaded"}
    return Engine.TRANSFORMERS if engine is Engine.OPENAI and has_state else engine


def engine_of_image(key: str | None, image: str | None) -> Engine | None:
    """The engine of an Inference Endpoint.

    Args:
        key: of `model.image`.
        image: the name of a container image.
    """
    by_key = (engine for engine, spec in SPECS.items() if key and key.casefold() in spec.image_keys)
    if found := next(by_key, None):
        return found
    words = ((spec.image_word, engine) for engine, spec in SPECS.items() if spec.image_word)
    longest_first = sorted(words, key=lambda row: -len(row[0]))
    return next((engine for word, engine in longest_first if image and word in image.casefold()), None)
