"""The form of a model: its fields, and the endpoint that they describe.

The form is converted to the body of `POST /api/endpoints`, so the page can do no more than the API. Fields that do not
apply to the selected source or task are ignored, whatever they contain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum
from itertools import chain
from typing import Any, NamedTuple

from hubgate.domain.endpoint import (
    DEFAULT_REQUESTS_PER_MINUTE,
    Endpoint,
    Engine,
    InputType,
    Precision,
    Source,
    Task,
)
from hubgate.domain.endpoint_fields import FIELDS, EndpointField
from hubgate.domain.errors import InvalidRequest
from hubgate.domain.secret import Secret
from hubgate.web.console.models.chunking import FIT, SEPARATORS, STRATEGIES, chunking_fields, parse_chunking
from hubgate.web.console.models.paste import name_of_server, suggested_name
from hubgate.web.schemas.endpoint import EndpointForm
from hubgate.web.schemas.validation import convert

KINDS = {
    "llm": (Task.CHAT_COMPLETION, Task.COMPLETION),
    "embedding": (Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING),
    "rerank": (Task.RERANK,),
}
"""Model types as in Dify, and the tasks of each; the first is the default."""
WHERE = (Source.ROUTER, Source.DEDICATED, Source.LOCAL, Source.FAKE)
ENGINES = tuple(engine for engine in Engine if engine not in {Engine.PROVIDER, Engine.OPENVINO, Engine.FAKE})
"""Servers that a URL can lead to."""
KEEP, NEW, NOTHING = "=", "+", ""
"""Choices for the token besides the name of a connection: keep the stored one, enter a new one, none."""
_YES_NO = {"true": True, "false": False}


class Control(NamedTuple):
    """How a field is entered."""

    kind: str
    """`text`, `whole` or `choice`, as the macros of `_form.html` are called."""
    options: list[tuple[str, str]]
    """Of a choice: value and label; the first leaves the default."""
    sources: str
    """CSS classes of the sources that have the field; empty for all."""
    kinds: str
    """CSS classes of the model types that have it; empty for all."""


def _control(field: EndpointField) -> Control:
    values: list[str] = []
    if issubclass(field.base_type, Enum):
        values = [str(value) for value in field.base_type]
    elif field.base_type is bool:
        values = [*_YES_NO]
    kind = "choice" if values else "whole" if field.base_type is int else "text"
    sources = [f"for-{source}" for source in Source if source in field.sources]
    kinds = [f"for-{name}" for name, tasks in KINDS.items() if not field.tasks.isdisjoint(tasks)]
    return Control(
        kind,
        [("", "–"), *((value, value) for value in values)],
        " ".join(sources) if len(sources) < len(Source) else "",
        " ".join(kinds) if len(kinds) < len(KINDS) else "",
    )


_NOT_SIMPLE = frozenset(
    {
        "task",
        "source",
        "urls",
        "token",
        "connection",
        "chunking_settings",
        "prefixes",
        "prompt_names",
        "cache",
        "enabled",
    }
)
"""Fields of an endpoint that the form has in parts, under another name, or not at all."""
SIMPLE_FIELDS = tuple(field for field in FIELDS if field.name not in _NOT_SIMPLE)
"""Fields of an endpoint that are one field of the form, with the same name."""
CONTROLS = {field.name: _control(field) for field in SIMPLE_FIELDS}
_NEEDED = {
    Source.ROUTER: ("model",),
    Source.DEDICATED: ("url",),
    Source.LOCAL: ("model",),
    Source.FAKE: (),
}
"""Required fields; the name can be derived from them."""
_DEMO = "demo"
PREFIXES = {f"prefix_{word}": word for word in InputType}
"""Input type of each prefix field."""
PROMPTS = {f"prompt_{word}": word for word in InputType}
"""Input type of each field that names a prompt of the model."""
RAW_FIELDS = frozenset({*PREFIXES, SEPARATORS})
"""Fields whose trailing spaces matter."""
_PARTS = (*PREFIXES, "no_prefixes", *PROMPTS, "strategy", SEPARATORS, *chain(*STRATEGIES.values()))
"""Form fields of prefixes and chunking settings."""
_MAX_NUMBER = 10**9
_MAX_SECONDS = 86_400

EMPTY: Mapping[str, str] = {
    "kind": "embedding",
    "where": Source.DEDICATED,
    **{f"task_{kind}": tasks[0] for kind, tasks in KINDS.items()},
    "requests_per_minute": str(DEFAULT_REQUESTS_PER_MINUTE),
    "burst": "1",
    "strategy": FIT,
    "max_chunk_size": "250",
    "sentence_overlap": "1",
    "overlap": "100",
    "separator_group": "markdown",
    "precision": Precision.F32,
    "connection": NEW,
    "cache": "on",
}
"""The initial form; all other fields are empty."""


class Faults(Exception):
    """Invalid fields, each with the locale key of its message."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(", ".join(fields))
        self.fields = fields


def endpoint_of(form: Mapping[str, str], old: Endpoint | None = None) -> tuple[Endpoint, Secret | None]:
    """The endpoint that a submitted form describes, and its new token.

    Args:
        form: the submitted fields.
        old: the endpoint to change; its name, whether it is enabled, and unedited separators stay.

    Raises:
        Faults: fields are invalid.
        InvalidEndpoint: the fields are valid, but not together.
    """
    source = _source(form)
    form = {**form, "name": old.name if old else form.get("name") or proposed_name(form)}
    faults = dict(_missing(form, source))
    task = task_of(form)
    form = _without_unused(form, task, old)
    simple = {
        field: _value(form, field, faults)
        for field in SIMPLE_FIELDS
        if source in field.sources and form.get(field.name)
    }
    chunking = parse_chunking(form, faults, old.chunking if old else None)
    if faults:
        raise Faults(faults)
    made: dict[str, Any] = {
        "task": task,
        "source": source,
        "rate_limit": {field.name: value for field, value in simple.items() if field.in_rate_limit},
        "chunking_settings": chunking,
        "prefixes": _prefixes(form),
        "prompt_names": {word: form[field] for field, word in PROMPTS.items() if form.get(field)} or None,
        "cache": "cache" in form,
        **{field.name: value for field, value in simple.items() if not field.in_rate_limit},
        **_token(form),
    }
    if urls := form.get("url", "").split()[1:]:
        made["urls"] = [made.pop("url").split()[0], *urls]
    endpoint, token = convert(made, EndpointForm).endpoint()
    return (replace(endpoint, enabled=old.enabled) if old else endpoint), token


def proposed_name(form: Mapping[str, str]) -> str:
    """The default name: the model's, otherwise the server's; empty if the form has neither."""
    where = form.get("where")
    if where == Source.FAKE:
        return _DEMO
    model = suggested_name(form.get("model", ""))
    return model or (
        name_of_server(form.get("url", "").partition("\n")[0].strip()) if where == Source.DEDICATED else ""
    )


def form_of(endpoint: Endpoint, *, has_token: bool) -> dict[str, str]:
    """The form fields of an endpoint."""
    kind = next(kind for kind, tasks in KINDS.items() if endpoint.task in tasks)
    own = KEEP if has_token else NOTHING
    values: dict[str, object] = {
        **EMPTY,
        "kind": kind,
        "where": endpoint.source,
        f"task_{kind}": endpoint.task,
        "connection": endpoint.connection or own,
        "cache": "on" if endpoint.cached else None,
        **{field.name: getattr(endpoint, field.attribute) for field in SIMPLE_FIELDS},
        "url": "\n".join(endpoint.urls) or endpoint.url,
        **{field: (endpoint.prefixes or {}).get(word) for field, word in PREFIXES.items()},
        **{field: (endpoint.prompt_names or {}).get(word) for field, word in PROMPTS.items()},
        "no_prefixes": None if endpoint.prefixes is None or any(endpoint.prefixes.values()) else "on",
        **chunking_fields(endpoint.chunking),
    }
    return {name: _shown(value) for name, value in values.items() if value is not None}


def task_of(form: Mapping[str, str]) -> Task:
    """The selected task; Hugging Face's names are accepted too.

    Raises:
        InvalidRequest: no task is selected.
    """
    kind = form.get("kind", "")
    try:
        return Task(form.get(f"task_{kind}") or KINDS[kind][0])
    except (KeyError, ValueError):
        raise InvalidRequest("The form has no model type.", remedy="Load the page again.") from None


def _source(form: Mapping[str, str]) -> Source:
    try:
        return Source(form.get("where", ""))
    except ValueError:
        raise InvalidRequest("The form has no endpoint type.", remedy="Load the page again.") from None


def _missing(form: Mapping[str, str], source: Source) -> Iterable[tuple[str, str]]:
    missing = [name for name in _NEEDED[source] if not form.get(name)]
    if not missing and not form["name"]:  # otherwise the name follows from what is missing
        missing = ["name"]
    yield from ((name, "fault.missing") for name in missing)
    needs_token = source not in (Source.LOCAL, Source.FAKE)
    if form.get("connection") == NEW and needs_token and not form.get("token"):
        yield "token", "fault.token"


def _without_unused(form: Mapping[str, str], task: Task, old: Endpoint | None) -> dict[str, str]:
    """The form with the fields that the task does not use as they were before, or empty."""
    kind = next(tasks for tasks in KINDS.values() if task in tasks)
    unused = {field.name for field in SIMPLE_FIELDS if field.tasks.isdisjoint(kind)}
    if kind != KINDS["embedding"]:
        unused.update(_PARTS)
    before = form_of(old, has_token=False) if old and old.task in kind else EMPTY
    return {
        **{name: text for name, text in form.items() if name not in unused},
        **{name: before[name] for name in unused & before.keys()},
    }


def _value(form: Mapping[str, str], field: EndpointField, faults: dict[str, str]) -> object:
    text = form[field.name]
    if field.base_type is int:
        return _whole_number(text, field.name, faults)
    if field.base_type is float:
        return _seconds(text, field.name, faults)
    return _YES_NO.get(text) if field.base_type is bool else text


def _whole_number(text: str, name: str, faults: dict[str, str]) -> int | None:
    """A whole number in the digits of any language."""
    text = text.replace(",", "").replace("\u066c", "")
    if text.isdecimal() and len(text) < 12 and 0 < int(text) <= _MAX_NUMBER:
        return int(text)
    faults[name] = "fault.whole"
    return None


def _seconds(text: str, name: str, faults: dict[str, str]) -> float | None:
    try:
        seconds = float(text.replace("\u066b", "."))
    except ValueError:
        seconds = 0.0
    if 0 < seconds <= _MAX_SECONDS:
        return seconds
    faults[name] = "fault.seconds"
    return None


def _prefixes(form: Mapping[str, str]) -> dict[InputType, str] | None:
    """Prefixes, which may have several lines; `None` uses those known for the model."""
    texts = {word: form.get(field, "").replace("\r\n", "\n") for field, word in PREFIXES.items()}
    given = {word: text for word, text in texts.items() if text}
    return given or ({} if "no_prefixes" in form else None)


def _token(form: Mapping[str, str]) -> dict[str, str | None]:
    choice = form.get("connection", NOTHING)
    if choice == NEW:
        return {"token": form.get("token")}
    return {"connection": choice} if choice not in (KEEP, NOTHING) else {}


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
