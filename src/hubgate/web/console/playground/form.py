"""The playground's form: what is asked of a model of each task, and the parameters that steer a model that writes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from hubgate.domain.calls import Chat, Complete, Context, Embed, InputType, Rerank, SparseEmbed
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Task
from hubgate.domain.errors import InvalidRequest
from hubgate.web.console.playground.snippets import PlaygroundCall

MAX_TEXTS = 12
"""In one try: as many as a picture of their similarities shows well."""
MOST_CHARACTERS = 100_000
"""Of one text."""
SAMPLES = 4
"""Texts that the page proposes, under the keys `play.sample.1`, …"""
INPUT_TYPES = (InputType.INGEST, InputType.SEARCH)
RAW_FIELDS = ("prompt", "messages", "stop")
"""In which spaces count."""
_MOST_STOPS = 4
_FULL_LENGTH = 512


class Parameter(NamedTuple):
    """A number that steers a model that writes, by the name that APIs have for it."""

    name: str
    low: float
    high: float
    step: float
    usual: int | None = None
    """What the page proposes; `None` leaves it to the model."""


PARAMETERS = (
    Parameter("temperature", 0, 2, 0.01),
    Parameter("top_p", 0.01, 1, 0.01),
    Parameter("max_tokens", 1, 1_000_000, 1, usual=_FULL_LENGTH),
    Parameter("seed", 0, 2**31 - 1, 1),
)
FURTHER = (
    Parameter("top_k", 1, 1000, 1),
    Parameter("repetition_penalty", 0.01, 2, 0.01),
    Parameter("frequency_penalty", -2, 2, 0.01),
    Parameter("presence_penalty", -2, 2, 0.01),
)
"""Not of every API: a server that does not know one says so, or passes over it."""


class _Message(msgspec.Struct):
    role: str
    content: str


_MESSAGES = msgspec.json.Decoder(list[_Message])
_ROLES = frozenset({"user", "assistant"})


def kind_of(endpoint: Endpoint) -> str:
    """Which playground an endpoint has: `embed`, `sparse`, `rank`, `text` or `chat`."""
    if endpoint.task not in GENERATION_TASKS:
        return {Task.TEXT_EMBEDDING: "embed", Task.SPARSE_EMBEDDING: "sparse", Task.RERANK: "rank"}[
            endpoint.task
        ]
    facts = endpoint.facts
    chats = facts.completes is False or (endpoint.task is Task.CHAT_COMPLETION and facts.chats is not False)
    return "chat" if chats else "text"


def call_of(endpoint: Endpoint, form: Mapping[str, str], context: Context) -> PlaygroundCall:
    """The call that the form describes.

    Raises:
        InvalidRequest: something is missing or out of range; says what.
    """
    kind = kind_of(endpoint)
    if kind == "chat":
        messages = msgspec.json.encode(_messages(form))
        return Chat(fields={"messages": messages, **parameters_of(form)}, context=context)
    if kind == "text":
        return Complete(prompt=_needed(form, "prompt"), fields=parameters_of(form), context=context)
    texts = parse_texts(form)
    if not texts:
        raise InvalidRequest("There is no text.", remedy="Write at least one.")
    if kind == "embed":
        word = form.get("input_type")
        return Embed(
            texts=texts,
            input_type=InputType(word) if word in INPUT_TYPES else None,
            dimensions=_whole(form, "dimensions"),
            cached=False,  # what is told of time and tokens is of the model
            context=context,
        )
    if kind == "sparse":
        return SparseEmbed(texts=texts, context=context)
    raw = True if form.get("raw_scores") else None
    return Rerank(query=_needed(form, "query"), texts=texts, raw_scores=raw, context=context)


def as_last_asked(endpoint: Endpoint, form: Mapping[str, str]) -> Mapping[str, str]:
    """The form of a conversation in which nothing new is written: as it was when the last message was sent."""
    if kind_of(endpoint) != "chat" or _text(form, "prompt").strip():
        return form
    said = _said(form)
    last = max((place for place, one in enumerate(said) if one.role == "user"), default=None)
    if last is None:
        return form
    return {**form, "messages": msgspec.json.encode(said[:last]).decode(), "prompt": said[last].content}


def parse_texts(form: Mapping[str, str]) -> Sequence[str]:
    """The texts in the order of their fields, `text_1` and on; empty ones are left out.

    Raises:
        InvalidRequest: one is too long.
    """
    texts = [one for n in range(1, MAX_TEXTS + 1) if (one := _text(form, f"text_{n}").strip())]
    if any(len(one) > MOST_CHARACTERS for one in texts):
        raise InvalidRequest(
            f"A text has more than {MOST_CHARACTERS} characters.",
            remedy="Try a shorter one; applications may send it.",
        )
    return texts


def parameters_of(form: Mapping[str, str]) -> dict[str, bytes]:
    """The parameters that are given, each as JSON.

    Raises:
        InvalidRequest: one is out of range.
    """
    given: dict[str, Any] = {}
    for one in (*PARAMETERS, *FURTHER):
        if written := form.get(one.name, "").strip():
            given[one.name] = _number(one, written)
    if stops := [line.replace("\\n", "\n") for line in _text(form, "stop").split("\n") if line]:
        if len(stops) > _MOST_STOPS:
            raise InvalidRequest(f"[stop] has {len(stops)} lines, and at most {_MOST_STOPS} are taken.")
        given["stop"] = stops
    return {name: msgspec.json.encode(value) for name, value in given.items()}


def _messages(form: Mapping[str, str]) -> list[dict[str, str]]:
    """The whole conversation: what the model is told of itself, what was said, and what is said now."""
    said = _said(form)
    system = [{"role": "system", "content": text}] if (text := _text(form, "system").strip()) else []
    before = [{"role": one.role, "content": one.content} for one in said]
    return [*system, *before, {"role": "user", "content": _needed(form, "prompt")}]


def _said(form: Mapping[str, str]) -> list[_Message]:
    """What was said before."""
    try:
        said = _MESSAGES.decode(form.get("messages") or "[]")
    except msgspec.DecodeError:
        raise InvalidRequest("The conversation cannot be read.", remedy="Begin a new one.") from None
    if any(one.role not in _ROLES for one in said):
        raise InvalidRequest("The conversation holds a role that is not known.", remedy="Begin a new one.")
    return said


def _number(parameter: Parameter, written: str) -> float | int:
    try:
        number: float = int(written) if parameter.step == 1 else float(written)
    except ValueError:
        number = math.nan
    if not parameter.low <= number <= parameter.high:
        whole = "a whole number" if parameter.step == 1 else "a number"
        raise InvalidRequest(f"[{parameter.name}] must be {whole} from {parameter.low} to {parameter.high}.")
    return number


def _whole(form: Mapping[str, str], name: str) -> int | None:
    written = form.get(name, "").strip()
    return int(_number(Parameter(name, 1, 65_536, 1), written)) if written else None


def _needed(form: Mapping[str, str], name: str) -> str:
    text = _text(form, name)
    if not text.strip():
        raise InvalidRequest(f"[{name}] is empty.", remedy="Write something into it.")
    return text


def _text(form: Mapping[str, str], name: str) -> str:
    """A text as it was written: browsers send forms with the line ends of DOS."""
    return form.get(name, "").replace("\r\n", "\n")
