"""The bodies of `POST /_inference/…`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from hubgate.domain.calls import Chat, Context
from hubgate.domain.endpoint import InputType, OutputDtype, Task
from hubgate.web.elastic.errors import action_request_validation_exception, parse_exception
from hubgate.web.elastic.options import parse_body
from hubgate.web.shared.embeddings import MAX_TEXTS

# Fields that only some tasks accept.
_TASK_FIELDS = {
    Task.TEXT_EMBEDDING: frozenset({"input_type", "chunking_settings", "embedding_type"}),
    Task.RERANK: frozenset({"query", "return_documents", "top_n"}),
}


class ElementType(StrEnum):
    """Of Elasticsearch's `dense_vector`. The value is the name of the results in a response."""

    FLOAT = "text_embedding"
    BYTE = "text_embedding_bytes"
    BIT = "text_embedding_bits"

    @property
    def dtype(self) -> OutputDtype:
        return _DTYPES[self]


_DTYPES = {
    ElementType.FLOAT: OutputDtype.FLOAT,
    ElementType.BYTE: OutputDtype.INT8,
    ElementType.BIT: OutputDtype.UBINARY,
}

_ELEMENT_TYPES = {
    "float": ElementType.FLOAT,
    "byte": ElementType.BYTE,
    "int8": ElementType.BYTE,
    "bit": ElementType.BIT,
    "binary": ElementType.BIT,
}
"""With the synonyms that Elasticsearch's service for Cohere accepts."""
_CHAT_FIELDS = frozenset({"messages", "stop", "temperature", "top_p", "tools", "tool_choice"})


class InferenceForm(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body for every task but chat_completion."""

    input: str | list[str] | None = None
    input_type: str | None = None
    query: str | None = None
    return_documents: bool | None = None
    top_n: int | None = None
    task_settings: dict[str, Any] | None = None
    timeout: str | None = None
    chunking_settings: dict[str, Any] | None = None
    """hubgate's own: asks for the chunks of each input."""
    embedding_type: str | None = None
    """hubgate's own on a request; other services of Elasticsearch have it as a setting."""

    def texts(self, task: Task) -> Sequence[str]:
        """The texts, if the whole body is valid for the task.

        Raises:
            ElasticError: a field is missing, or belongs to another task.
        """
        texts = (self.input,) if isinstance(self.input, str) else self.input
        problems = [*_text_problems(texts), *self._misplaced(task)]
        if task is Task.RERANK:
            problems += self._rerank_problems()
        if texts is None or problems:
            raise action_request_validation_exception(problems)
        return texts

    def parsed_input_type(self) -> InputType | None:
        word = self.input_type
        if word is None or word.lower() == "unspecified":
            return None
        try:
            return InputType.parse(word)
        except ValueError:
            known = ", ".join(InputType)
            raise parse_exception(
                f"Invalid value [{word[:200]}]. [input_type] must be one of [{known}]"
            ) from None

    def element_type(self) -> ElementType:
        word = self.embedding_type
        if word is None:
            return ElementType.FLOAT
        try:
            return _ELEMENT_TYPES[word.lower()]
        except KeyError:
            known = ", ".join(_ELEMENT_TYPES)
            raise parse_exception(
                f"Invalid value [{word[:200]}]. [embedding_type] must be one of [{known}]"
            ) from None

    def _misplaced(self, task: Task) -> Iterator[str]:
        for key in (
            "input_type",
            "query",
            "return_documents",
            "top_n",
            "chunking_settings",
            "embedding_type",
        ):
            if getattr(self, key) is not None and key not in _TASK_FIELDS.get(task, ()):
                yield f"Field [{key}] cannot be specified for task type [{task}]"

    def _rerank_problems(self) -> Iterator[str]:
        if not self.query:
            state = "null" if self.query is None else "empty"
            yield f"Field [query] cannot be {state} for task type [{Task.RERANK}]"
        if self.top_n is not None and self.top_n < 1:
            yield f"Invalid value [{self.top_n}]. [top_n] must be a positive integer"


_INFERENCE = msgspec.json.Decoder(InferenceForm)
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_inference(body: bytes) -> InferenceForm:
    return parse_body(body, _INFERENCE)


def read_chat(body: bytes, call_context: Context) -> Chat:
    """The body for chat_completion. `model` is ignored: the endpoint determines it.

    Raises:
        ElasticError: the body is not valid JSON, has no messages, or has an unknown field.
    """
    raw = {name: bytes(value) for name, value in parse_body(body, _RAW_FIELDS).items()}
    raw.pop("model", None)
    fields = {name: value for name, value in raw.items() if value != b"null"}
    max_tokens = fields.pop("max_completion_tokens", None)
    if unknown := sorted(fields.keys() - _CHAT_FIELDS):
        raise parse_exception(f"[unified_chat_completion_request] unknown field [{unknown[0][:200]}]")
    if not fields.get("messages", b"").startswith(b"["):
        raise parse_exception(
            "[unified_chat_completion_request] required field [messages] must be an array of messages"
        )
    if max_tokens is not None:
        fields["max_tokens"] = max_tokens
    return Chat(fields=fields, context=call_context)


def _text_problems(texts: Sequence[str] | None) -> Iterator[str]:
    if texts is None:
        yield "Field [input] cannot be null"
    elif not texts:
        yield "Field [input] cannot be an empty array"
    elif len(texts) > MAX_TEXTS:
        yield f"Field [input] has {len(texts)} texts, and one request takes at most {MAX_TEXTS}"
    elif "" in texts:
        yield f"Field [input] cannot hold an empty string, and text {texts.index('')} is one (counted from 0)"
