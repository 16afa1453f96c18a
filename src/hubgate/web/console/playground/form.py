"""The playground's form: the input for each task, and the generation parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from hubgate.domain.calls import Chat, Complete, Context, Embed, Rerank, SparseEmbed
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, InputType, Task
from hubgate.domain.errors import InvalidRequest
from hubgate.web.console.playground.snippets import PlaygroundCall

MAX_TEXTS = 12
"""The size of the similarity matrix."""
MAX_TEXT_CHARACTERS = 100_000
SAMPLES = 4
"""The number of sample texts, which are the locale messages `play.sample.1` to `play.sample.4`."""
INPUT_TYPES = (InputType.INGEST, InputType.SEARCH)
RAW_FIELDS = ("prompt", "messages", "stop")
"""Fields whose leading and trailing spaces are kept."""
_MAX_STOPS = 4
_DEFAULT_MAX_TOKENS = 512


class Parameter(NamedTuple):
    """A numeric generation parameter, by its name in the APIs."""

    name: str
    low: float
    high: float
    step: float
    default: int | None = None
    """If `None`, the parameter is not sent and the server's default applies."""


PARAMETERS = (
    Parameter("temperature", 0, 2, 0.01),
    Parameter("top_p", 0.01, 1, 0.01),
    Parameter("max_tokens", 1, 1_000_000, 1, default=_DEFAULT_MAX_TOKENS),
    Parameter("seed", 0, 2**31 - 1, 1),
)
MORE_PARAMETERS = (
    Parameter("top_k", 1, 1000, 1),
    Parameter("repetition_penalty", 0.01, 2, 0.01),
    Parameter("frequency_penalty", -2, 2, 0.01),
    Parameter("presence_penalty", -2, 2, 0.01),
)
"""Not supported by every server: some return an error, others ignore them."""


class _Message(msgspec.Struct):
    role: str
    content: str


_MESSAGES = msgspec.json.Decoder(list[_Message])
_ROLES = frozenset({"user", "assistant"})
_TEXT_KINDS = {Task.TEXT_EMBEDDING: "embed", Task.SPARSE_EMBEDDING: "sparse", Task.RERANK: "rank"}


def kind_of(endpoint: Endpoint) -> str:
    """Which playground fits the endpoint: one of `_TEXT_KINDS`, `text`, `chat`, or `none` if its task has none."""
    if endpoint.task not in GENERATION_TASKS:
        return _TEXT_KINDS.get(endpoint.task, "none")
    facts = endpoint.facts
    chats = facts.completes is False or (endpoint.task is Task.CHAT_COMPLETION and facts.chats is not False)
    return "chat" if chats else "text"


def call_of(endpoint: Endpoint, form: Mapping[str, str], context: Context) -> PlaygroundCall:
    """The call that the form describes.

    Raises:
        InvalidRequest: a field is missing or out of range.
    """
    kind = kind_of(endpoint)
    if kind == "chat":
        messages = msgspec.json.encode(_messages(form))
        return Chat(fields={"messages": messages, **parameters_of(form)}, context=context)
    if kind == "text":
        return Complete(prompt=_required(form, "prompt"), fields=parameters_of(form), context=context)
    texts = parse_texts(form)
    if not texts:
        raise InvalidRequest("No text was given.", remedy="Enter at least one text.")
    if kind == "embed":
        word = form.get("input_type")
        return Embed(
            texts=texts,
            input_type=InputType(word) if word in INPUT_TYPES else None,
            dimensions=_whole(form, "dimensions"),
            cached=False,  # the page shows the time and tokens of the model
            context=context,
        )
    if kind == "sparse":
        return SparseEmbed(texts=texts, context=context)
    if kind == "rank":
        raw = True if form.get("raw_scores") else None
        return Rerank(query=_required(form, "query"), texts=texts, raw_scores=raw, context=context)
    raise InvalidRequest(
        f"The playground does not support {endpoint.task}.", remedy="Call the endpoint through the API."
    )


def with_last_message(endpoint: Endpoint, form: Mapping[str, str]) -> Mapping[str, str]:
    """The form as it was when the last chat message was sent, unless a new message has been entered.

    Code snippets then show the call whose answer the page shows.
    """
    if kind_of(endpoint) != "chat" or _text(form, "prompt").strip():
        return form
    history = _history(form)
    last = max((place for place, one in enumerate(history) if one.role == "user"), default=None)
    if last is None:
        return form
    return {**form, "messages": msgspec.json.encode(history[:last]).decode(), "prompt": history[last].content}


def parse_texts(form: Mapping[str, str]) -> Sequence[str]:
    """The texts of the fields `text_1`, `text_2`, …, without empty ones.

    Raises:
        InvalidRequest: a text is too long.
    """
    texts = [one for n in range(1, MAX_TEXTS + 1) if (one := _text(form, f"text_{n}").strip())]
    if any(len(one) > MAX_TEXT_CHARACTERS for one in texts):
        raise InvalidRequest(
            f"A text has more than {MAX_TEXT_CHARACTERS} characters.",
            remedy="Enter a shorter one. This limit applies to the playground only.",
        )
    return texts


def parameters_of(form: Mapping[str, str]) -> dict[str, bytes]:
    """The parameters that are set, each as JSON.

    Raises:
        InvalidRequest: a parameter is out of range.
    """
    given: dict[str, Any] = {}
    for one in (*PARAMETERS, *MORE_PARAMETERS):
        if written := form.get(one.name, "").strip():
            given[one.name] = _number(one, written)
    if stops := [line.replace("\\n", "\n") for line in _text(form, "stop").split("\n") if line]:
        if len(stops) > _MAX_STOPS:
            raise InvalidRequest(f"[stop] has {len(stops)} lines. At most {_MAX_STOPS} are allowed.")
        given["stop"] = stops
    return {name: msgspec.json.encode(value) for name, value in given.items()}


def _messages(form: Mapping[str, str]) -> list[dict[str, str]]:
    """The system prompt, the conversation so far, and the new message."""
    system = [{"role": "system", "content": text}] if (text := _text(form, "system").strip()) else []
    history = [{"role": one.role, "content": one.content} for one in _history(form)]
    return [*system, *history, {"role": "user", "content": _required(form, "prompt")}]


def _history(form: Mapping[str, str]) -> list[_Message]:
    try:
        history = _MESSAGES.decode(form.get("messages") or "[]")
    except msgspec.DecodeError:
        raise InvalidRequest("The conversation cannot be parsed.", remedy="Start a new one.") from None
    if any(one.role not in _ROLES for one in history):
        raise InvalidRequest("The conversation contains an unknown role.", remedy="Start a new one.")
    return history


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


def _required(form: Mapping[str, str], name: str) -> str:
    text = _text(form, name)
    if not text.strip():
        raise InvalidRequest(f"[{name}] is empty.", remedy="Enter a text.")
    return text


def _text(form: Mapping[str, str], name: str) -> str:
    """A text with Unix line breaks; browsers send CRLF."""
    return form.get(name, "").replace("\r\n", "\n")
