"""Endpoints that generate text behind a scripted gateway, and parsers of what they stream."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lookalikes.ranker import score_of
from scripted_gateway import two_numbers

from hubgate.domain.calls import (
    Chat,
    Complete,
    Generated,
    Rerank,
    Scores,
    SparseEmbed,
    SparseVectors,
    WireFormat,
)
from hubgate.domain.endpoint import Endpoint, Source, Task
from hubgate.service.registry.ranking import QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import Call, GenerationCall, Result


async def add_generator(
    gateway: ScriptedGateway, name: str = "llm", task: Task = Task.CHAT_COMPLETION, **facts: Any
) -> None:
    """Register an endpoint that generates text; `facts` are what detection reports besides."""
    await add(gateway, name, task, **facts)
    gateway.script.write_calls.clear()


async def add(gateway: ScriptedGateway, name: str, task: Task, **facts: Any) -> None:
    """Register an endpoint of any task."""
    gateway.script.answer = by_length
    gateway.script.facts = replace(gateway.script.facts, **facts)
    await gateway.service.registry.register(Endpoint(name=name, task=task, source=Source.FAKE), None)
    gateway.script.calls.clear()


def by_length(call: Call) -> Result:
    """Scores by text length for a reranker, one sparse vector per text, else `two_numbers`."""
    if isinstance(call, Rerank):
        return Scores(items=_by_length(call), tokens=7 * len(call.texts), exact=True)
    if isinstance(call, SparseEmbed):
        return SparseVectors(items=[b'{"gate":0.5,"17":0.25}' for _ in call.texts], tokens=2)
    return two_numbers(call)


def _by_length(call: Rerank) -> list[float]:
    """By words in common for the questions of a registration, which ask for an order that means something."""
    if any(call.query in pairs for pairs in QUESTIONS.values()):
        return [score_of(call.query, text) for text in call.texts]
    return [len(text) / 10 for text in call.texts]


def last_chat(gateway: ScriptedGateway) -> dict[str, Any]:
    """The fields of the last call, which must be a `Chat`."""
    call = gateway.script.write_calls[-1]
    assert isinstance(call, Chat)
    return {name: json.loads(value) for name, value in call.fields.items()}


def last_completion(gateway: ScriptedGateway) -> Complete:
    """The last call, which must be a `Complete`."""
    call = gateway.script.write_calls[-1]
    assert isinstance(call, Complete)
    return call


def fields_of(call: Complete) -> dict[str, Any]:
    """The decoded fields of a call."""
    return {name: json.loads(value) for name, value in call.fields.items()}


def parse_events(body: bytes) -> list[Any]:
    """The decoded data of each event, except `[DONE]`; no event may have another field."""
    events = body.decode().split("\n\n")
    assert events.pop() == ""
    lines = [event.removeprefix("data:").strip() for event in events if event.startswith("data:")]
    assert len(lines) == len(events)
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def tgi_reply(call: GenerationCall) -> Generated:
    """`hello` in TGI's format."""
    details = {"finish_reason": "eos_token", "generated_tokens": 1, "seed": None, "prefill": [], "tokens": []}
    body = {"generated_text": "hello", "details": details}
    return Generated(body=json.dumps(body).encode(), wire_format=WireFormat.TGI, prompt_tokens=3, tokens=4)


def tgi_events(call: GenerationCall) -> Iterator[Sequence[bytes]]:
    """`hel`, `lo` and the last event, in TGI's format."""
    for index, text in enumerate(("hel", "lo"), 1):
        token = {"id": 40 + index, "text": text, "logprob": -0.5, "special": False}
        yield [json.dumps({"index": index, "token": token, "generated_text": None, "details": None}).encode()]
    details = {"finish_reason": "eos_token", "generated_tokens": 3, "input_length": 2, "seed": None}
    token = {"id": 2, "text": "</s>", "logprob": -0.1, "special": True}
    last = {"index": 3, "token": token, "generated_text": "hello", "details": details}
    yield [json.dumps(last, separators=(",", ":")).encode()]
