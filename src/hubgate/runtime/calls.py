"""Calls in the worker process: tokenizes their texts, and collects the model's outputs into a reply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from hubgate.domain.calls import Token
from hubgate.domain.errors import InvalidRequest
from hubgate.runtime.model.heads import EmbeddingHead, RankingHead
from hubgate.runtime.model.selftest import sigmoid
from hubgate.runtime.model.spec import ModelSpec
from hubgate.runtime.model.tokenizer import ModelInput, ModelTokenizer
from hubgate.runtime.order import CallInfo
from hubgate.runtime.protocol import (
    CallReply,
    Embedded,
    EmbedTexts,
    Ranked,
    RankTexts,
    TextRequest,
    Tokenized,
    TokenizeTexts,
)

Array = np.ndarray[Any, Any]

SLICE_CHARACTERS = 16_384
"""The size of a slice, unless it is a single text. Tokenizing it takes about 20 ms, as of a long text only an excerpt is
tokenized."""


class WorkerCall(Protocol):
    """A call that is tokenized slice by slice, and then run by the model in one or more batches."""

    info: CallInfo
    characters: int
    """Of all texts."""
    rows: list[ModelInput]
    """One for each text that has been tokenized."""
    left: int
    """Texts without a result."""

    def tokenize(self) -> Iterator[None]:
        """Tokenize the texts, one slice per step.

        Raises:
            InvalidRequest: a text is too long.
            RuntimeFailed: the tokenizer's file does not support a text.
        """
        ...

    def take(self, index: int, outputs: Sequence[Array]) -> None:
        """Store the result of one text: its row of each output of the model."""
        ...

    def reply(self) -> CallReply: ...


def make_call(request: TextRequest, spec: ModelSpec, tokens: ModelTokenizer) -> WorkerCall:
    """The call for a request.

    Raises:
        InvalidRequest: the model does not support it, or has no such prompt.
    """
    match request:
        case EmbedTexts():
            return EmbedCall(request, spec, tokens)
        case RankTexts():
            return RankCall(request, spec, tokens)
        case TokenizeTexts():
            return TokenizeCall(request, tokens)


class EmbedCall:
    """Embeds texts.

    Raises:
        InvalidRequest: the model has no such prompt, or is a reranker.
    """

    def __init__(self, request: EmbedTexts, spec: ModelSpec, tokens: ModelTokenizer) -> None:
        if not isinstance(spec.head, EmbeddingHead):
            raise InvalidRequest(
                "The model is a reranker and returns no vectors.",
                remedy="Use it to rerank, or use another model.",
            )
        self.info = CallInfo(request.call, request.caller, request.bulk)
        self._texts = add_prompt(request, spec)
        self.characters = sum(map(len, self._texts))
        self.rows: list[ModelInput] = []
        self.left = len(self._texts)
        self._tokens = tokens
        self._truncate, self._truncate_left = request.truncate, request.truncate_left
        self._truncated: list[bool] = []
        # The model has two outputs: the vectors before and after normalization.
        self._output = int(spec.head.normalize if request.normalize is None else request.normalize)
        self._vectors = np.empty((len(self._texts), spec.width), "<f4")

    def tokenize(self) -> Iterator[None]:
        texts, self._texts = self._texts, ()  # frees megabytes once they are tokenized
        for first, some in slices(texts):
            rows, cut = self._tokens.rows(
                some, truncate=self._truncate, left=self._truncate_left, first=first
            )
            self.rows += rows
            self._truncated += cut
            yield

    def take(self, index: int, outputs: Sequence[Array]) -> None:
        self._vectors[index] = outputs[self._output]
        self.left -= 1

    def reply(self) -> Embedded:
        lengths = [len(row.ids) for row in self.rows]
        return Embedded(self.info.call, self._vectors.tobytes(), lengths, self._truncated)


class RankCall:
    """Scores the relevance of texts to a query.

    Raises:
        InvalidRequest: the model is not a reranker.
    """

    def __init__(self, request: RankTexts, spec: ModelSpec, tokens: ModelTokenizer) -> None:
        if not isinstance(spec.head, RankingHead):
            raise InvalidRequest(
                "The model returns vectors and cannot rerank.",
                remedy="Use it to embed, or use a cross-encoder.",
            )
        self.info = CallInfo(request.call, request.caller, request.bulk)
        self._query, self._texts = request.query, request.texts
        self.characters = sum(map(len, self._texts)) + len(self._query)
        self.rows: list[ModelInput] = []
        self.left = len(self._texts)
        self._tokens = tokens
        self._truncate = request.truncate
        self._truncated: list[bool] = []
        self._template, self._instruction = spec.head.template, request.instruction
        self._raw = bool(request.raw)
        self._scores = np.empty(len(self._texts))

    def tokenize(self) -> Iterator[None]:
        texts, self._texts = self._texts, []
        query = self._tokens.query(self._query)
        for first, some in slices(texts, beside=len(query.part)):
            if self._template is None:
                rows, cut = self._tokens.pairs(query, some, truncate=self._truncate, first=first)
            else:
                rows, cut = self._tokens.prompts(
                    self._template,
                    self._query,
                    some,
                    truncate=self._truncate,
                    first=first,
                    instruction=self._instruction,
                )
            self.rows += rows
            self._truncated += cut
            yield

    def take(self, index: int, outputs: Sequence[Array]) -> None:
        self._scores[index] = outputs[0][0]
        self.left -= 1

    def reply(self) -> Ranked:
        scores = self._scores if self._raw else sigmoid(self._scores)
        lengths = [len(row.ids) for row in self.rows]
        return Ranked(self.info.call, scores.tolist(), lengths, self._truncated)


class TokenizeCall:
    """Tokenizes texts, without running the model."""

    def __init__(self, request: TokenizeTexts, tokens: ModelTokenizer) -> None:
        self.info = CallInfo(request.call, request.caller, request.bulk)
        self._texts = request.texts
        self.characters = sum(map(len, self._texts))
        self.rows: list[ModelInput] = []
        self.left = 0
        self._tokens = tokens
        self._special = request.special
        self._items: list[list[Token]] = []

    def tokenize(self) -> Iterator[None]:
        for _, some in slices(self._texts):
            self._items += self._tokens.tokens(some, special=self._special)
            yield

    def take(self, index: int, outputs: Sequence[Array]) -> None:
        """Never called: the model is not run."""

    def reply(self) -> Tokenized:
        return Tokenized(self.info.call, self._items)


def slices(texts: Sequence[str], *, beside: int = 0) -> Iterator[tuple[int, Sequence[str]]]:
    """Split texts into slices of at most `SLICE_CHARACTERS`, or of one longer text.

    Yields each slice with the index of its first text.

    Args:
        texts: of a call.
        beside: additional characters that are tokenized with each text, such as a query.
    """
    first = size = 0
    for index, text in enumerate(texts):
        size += len(text) + beside
        if size > SLICE_CHARACTERS and index > first:
            yield first, texts[first:index]
            first, size = index, len(text) + beside
    if texts:
        yield first, texts[first:]


def add_prompt(request: EmbedTexts, spec: ModelSpec) -> Sequence[str]:
    """Prepend the requested prompt, or the default prompt to texts that do not start with a known prompt."""
    prompts, default = spec.prompts, spec.default_prompt
    if request.prompt_name is None:
        known = tuple(filter(None, prompts.values()))
        prompt = prompts.get(default, "") if default else ""
        if not prompt:
            return request.texts
        return [text if text.startswith(known) else prompt + text for text in request.texts]
    if request.prompt_name not in prompts:
        raise InvalidRequest(
            f"The model has no prompt named [{request.prompt_name}].",
            remedy=f"Its prompts: {', '.join(sorted(prompts)) or 'none'}.",
        )
    return [prompts[request.prompt_name] + text for text in request.texts]
