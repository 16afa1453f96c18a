"""What is posted to an endpoint on the Elasticsearch face, read strictly, and the calls that it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from hubgate.domain.calls import (
    Chat,
    Complete,
    Context,
    Embed,
    GenerationCall,
    InputType,
    Rerank,
    SparseEmbed,
)
from hubgate.domain.endpoint import Endpoint, Task
from hubgate.domain.errors import InvalidRequest
from hubgate.web.elastic.errors import (
    ElasticError,
    action_request_validation_exception,
    parse_exception,
    status_exception,
)
from hubgate.web.http.asgi import decode
from hubgate.web.shared.embeddings import MAX_TEXTS

T = TypeVar("T")
# Of the fields that only some tasks know, those that each does.
_OWN = {
    Task.TEXT_EMBEDDING: frozenset({"input_type", "chunking_settings"}),
    Task.RERANK: frozenset({"query", "return_documents", "top_n"}),
}
_OF_SOME = ("input_type", "query", "return_documents", "top_n", "chunking_settings")
_CHAT_FIELDS = frozenset({"messages", "stop", "temperature", "top_p", "tools", "tool_choice"})


class InferenceForm(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What is posted to an endpoint of any task but chat_completion."""

    input: str | list[str] | None = None
    input_type: str | None = None
    query: str | None = None
    return_documents: bool | None = None
    top_n: int | None = None
    task_settings: dict[str, Any] | None = None
    timeout: str | None = None
    chunking_settings: dict[str, Any] | None = None
    """hubgate's own: asks for the chunks of each input."""

    def texts(self, task: Task) -> Sequence[str]:
        """The texts, where all that is posted can be meant for the task.

        Raises:
            ElasticError: something is missing, or belongs to another task.
        """
        texts = (self.input,) if isinstance(self.input, str) else self.input
        problems = [*_text_problems(texts), *self._misplaced(task)]
        if task is Task.RERANK:
            problems += self._rank_problems()
        if texts is None or problems:
            raise action_request_validation_exception(problems)
        return texts

    def embed(self, call_context: Context, default: InputType | None) -> Embed:
        """The call to an embedding model."""
        texts = self.texts(Task.TEXT_EMBEDDING)
        return Embed(texts=texts, input_type=_input_type(self.input_type) or default, context=call_context)

    def embed_sparse(self, call_context: Context) -> SparseEmbed:
        """The call to a model of weights of words."""
        return SparseEmbed(texts=self.texts(Task.SPARSE_EMBEDDING), context=call_context)

    def rerank(self, call_context: Context) -> Rerank:
        """The call to a reranker."""
        return Rerank(query=self.query or "", texts=self.texts(Task.RERANK), context=call_context)

    def complete(self, endpoint: Endpoint, call_context: Context) -> GenerationCall:
        """The call to a model that writes: as one message of a user's, where it can have conversations."""
        texts = self.texts(Task.COMPLETION)
        if len(texts) != 1:
            raise status_exception("Hugging Face completions only accepts 1 input")
        if not endpoint.facts.chats:
            return Complete(prompt=texts[0], fields={}, context=call_context)
        message = {"role": "user", "content": texts[0]}
        return Chat(fields={"messages": msgspec.json.encode([message])}, context=call_context)

    def _misplaced(self, task: Task) -> Iterator[str]:
        for key in _OF_SOME:
            if key not in _OWN.get(task, ()) and getattr(self, key) is not None:
                yield f"Field [{key}] cannot be specified for task type [{task}]"

    def _rank_problems(self) -> Iterator[str]:
        if not self.query:
            wrong = "null" if self.query is None else "empty"
            yield f"Field [query] cannot be {wrong} for task type [{Task.RERANK}]"
        if self.top_n is not None and self.top_n < 1:
            yield f"Invalid value [{self.top_n}]. [top_n] must be a positive integer"


_INFERENCE = msgspec.json.Decoder(InferenceForm)
_RAW_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_inference(body: bytes) -> InferenceForm:
    """The body of a POST.

    Raises:
        ElasticError: it is no JSON, or not of this form.
    """
    return parsed(body, _INFERENCE)


def read_chat(body: bytes, call_context: Context) -> Chat:
    """The conversation that is posted to a chat_completion endpoint. The endpoint says which model; `model` does not.

    Raises:
        ElasticError: it is no JSON, has no messages, or a field that is not known.
    """
    given = {name: bytes(raw) for name, raw in parsed(body, _RAW_FIELDS).items()}
    given.pop("model", None)
    fields = {name: raw for name, raw in given.items() if raw != b"null"}
    limit = fields.pop("max_completion_tokens", None)
    if unknown := sorted(fields.keys() - _CHAT_FIELDS):
        raise parse_exception(f"[unified_chat_completion_request] unknown field [{unknown[0][:200]}]")
    if not fields.get("messages", b"").startswith(b"["):
        raise parse_exception(
            "[unified_chat_completion_request] required field [messages] must be an array of messages"
        )
    return Chat(fields=fields if limit is None else {**fields, "max_tokens": limit}, context=call_context)


def parsed(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """A body as the decoder's type.

    Raises:
        ElasticError: it is missing, no JSON, or not of this type.
    """
    if not body:
        raise ElasticError("parse_exception", "request body is required")
    try:
        return decode(body, decoder)
    except InvalidRequest as error:
        # Elasticsearch says it in small letters, and clients look for its words.
        raise parse_exception(error.message.replace("Unknown field [", "unknown field [", 1)[:500]) from None


def _text_problems(texts: Sequence[str] | None) -> Iterator[str]:
    if texts is None:
        yield "Field [input] cannot be null"
    elif not texts:
        yield "Field [input] cannot be an empty array"
    elif len(texts) > MAX_TEXTS:
        yield f"Field [input] has {len(texts)} texts, and one request takes at most {MAX_TEXTS}"
    elif "" in texts:
        yield f"Field [input] cannot hold an empty string, and text {texts.index('')} is one (counted from 0)"


def _input_type(word: str | None) -> InputType | None:
    if word is None or word.lower() == "unspecified":
        return None
    try:
        return InputType.parse(word)
    except ValueError:
        known = ", ".join(InputType)
        raise parse_exception(
            f"Invalid value [{word[:200]}]. [input_type] must be one of [{known}]"
        ) from None
