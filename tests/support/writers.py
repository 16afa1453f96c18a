"""Endpoints that write, behind a scripted gate; and the events of a stream, read back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scripted import two_numbers

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

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scripted import ScriptedGate

    from hubgate.domain.calls import Call, GenerationCall, Result


async def add_writer(
    gate: ScriptedGate, name: str = "llm", task: Task = Task.CHAT_COMPLETION, **facts: Any
) -> None:
    """Register an endpoint that writes; `facts` are what is known of its model besides."""
    await add(gate, name, task, **facts)
    gate.script.write_calls.clear()


async def add(gate: ScriptedGate, name: str, task: Task, **facts: Any) -> None:
    """Register an endpoint of any task."""
    gate.script.answer = by_length
    gate.script.facts = replace(gate.script.facts, **facts)
    await gate.gateway.register(Endpoint(name=name, task=task, source=Source.FAKE), None)
    gate.script.calls.clear()


def by_length(call: Call) -> Result:
    """To a reranker: the longer a text, the better. To a sparse model: one word. To any other: two numbers."""
    if isinstance(call, Rerank):
        return Scores(items=[len(text) / 10 for text in call.texts], tokens=7 * len(call.texts), exact=True)
    if isinstance(call, SparseEmbed):
        return SparseVectors(items=[b'{"gate":0.5,"17":0.25}' for _ in call.texts], tokens=2)
    return two_numbers(call)


def asked_chat(gate: ScriptedGate) -> dict[str, Any]:
    """The fields of the last call, which must be a `Chat`."""
    call = gate.script.write_calls[-1]
    assert isinstance(call, Chat)
    return {name: json.loads(value) for name, value in call.fields.items()}


def asked_complete(gate: ScriptedGate) -> Complete:
    """The last call, which must be a `Complete`."""
    call = gate.script.write_calls[-1]
    assert isinstance(call, Complete)
    return call


def fields_of(call: Complete) -> dict[str, Any]:
    """The fields of a call, decoded."""
    return {name: json.loads(value) for name, value in call.fields.items()}


def events_in(body: bytes) -> list[Any]:
    """The data of each event, decoded, `[DONE]` as it is; every event must have only data."""
    told = body.decode().split("\n\n")
    assert told.pop() == ""
    lines = [event.removeprefix("data:").strip() for event in told if event.startswith("data:")]
    assert len(lines) == len(told)
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def in_tgi(call: GenerationCall) -> Generated:
    """`hello`, in the words of text-generation-inference."""
    details = {"finish_reason": "eos_token", "generated_tokens": 1, "seed": None, "prefill": [], "tokens": []}
    body = {"generated_text": "hello", "details": details}
    return Generated(body=json.dumps(body).encode(), wire_format=WireFormat.TGI, prompt_tokens=3, tokens=4)


def events_in_tgi(call: GenerationCall) -> Iterator[Sequence[bytes]]:
    """`hel`, `lo` and the end, in the words of text-generation-inference."""
    for index, text in enumerate(("hel", "lo"), 1):
        token = {"id": 40 + index, "text": text, "logprob": -0.5, "special": False}
        yield [json.dumps({"index": index, "token": token, "generated_text": None, "details": None}).encode()]
    details = {"finish_reason": "eos_token", "generated_tokens": 3, "input_length": 2, "seed": None}
    token = {"id": 2, "text": "</s>", "logprob": -0.1, "special": True}
    last = {"index": 3, "token": token, "generated_text": "hello", "details": details}
    yield [json.dumps(last, separators=(",", ":")).encode()]
