"""Tokenizing texts with a model's own tokenizer file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tokenizers import Tokenizer, normalizers

from hubgate.core.rerank_templates import RerankTemplate
from hubgate.domain.calls import Token
from hubgate.domain.errors import Cause, InvalidRequest, RuntimeFailed
from hubgate.runtime.model.excerpt import CHARACTERS_PER_TOKEN, ExcerptUndecided, excerpt, max_characters
from hubgate.runtime.model.files import (
    TOKENIZER,
    TRANSFORMER,
    TokenizerBroken,
    read_json,
    smaller_weights,
    unusable,
)
from hubgate.runtime.model.spec import ModelSpec

if TYPE_CHECKING:
    from tokenizers import Encoding


def open_tokenizer(folder: Path) -> Tokenizer:
    """Open the tokenizer of a model's folder, without truncation and padding.

    It lower-cases texts if the model's `do_lower_case` asks for it, as sentence-transformers' tokenizer does.

    Raises:
        TokenizerBroken: its file cannot be read.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the library raises plain Exception
        raise TokenizerBroken(f"{folder / TOKENIZER} cannot be read") from error
    # The file's own settings (128 tokens for MiniLM) are left from training; the model's other files have the limit.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if _lower_cases(folder):
        normalizer = tokenizer.normalizer
        # list() works by __getitem__, which the type does not declare.
        parts = list(normalizer) if isinstance(normalizer, normalizers.Sequence) else [normalizer]  # type: ignore[call-overload]
        if not any(isinstance(part, normalizers.Lowercase) for part in parts):
            tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *filter(None, parts)])
    return tokenizer


def _lower_cases(folder: Path) -> bool:
    try:
        return bool(read_json(folder, TRANSFORMER, needed=False).get("do_lower_case"))
    except RuntimeFailed:  # counting needs the tokenizer only; running the model reads this file, too
        return False


def count_tokens(tokenizer: Tokenizer, text: str, limit: int | None) -> int:
    """Count the tokens of a text, special ones included. Beyond `limit` the count may be too low, but exceeds it.

    Raises:
        TokenizerBroken: its file lacks what this text needs.
    """
    try:
        # Megabytes take seconds, and a hundred times the memory.
        if limit is not None and len(text) > CHARACTERS_PER_TOKEN * limit:
            beginning = len(tokenizer.encode_batch_fast([text[: CHARACTERS_PER_TOKEN * limit]])[0])
            # The last word may have been cut into more tokens than the whole word has.
            if beginning > limit + CHARACTERS_PER_TOKEN:
                return beginning
        return len(tokenizer.encode_batch_fast([text])[0])
    except Exception as error:  # the library raises plain Exception
        raise TokenizerBroken(f"{TOKENIZER} cannot cut every text into tokens") from error


class ModelInput(NamedTuple):
    """The tokens of one text, or of a query and a text."""

    ids: list[int]
    """Special tokens included."""
    kinds: list[int] | None = None
    """The segment of each token; `None` if all are in the first."""


class EncodedQuery(NamedTuple):
    """A tokenized query: the part that the model may read, and the tokens of the whole query."""

    part: str
    encoding: Encoding
    length: int


class ModelTokenizer:
    """The tokenizer of a model. Safe to use from several threads."""

    def __init__(self, spec: ModelSpec) -> None:
        try:
            tokenizer = open_tokenizer(spec.folder)
        except TokenizerBroken as error:
            raise unusable(spec.folder, f"{TOKENIZER} cannot be read") from error
        self._tokenizer = tokenizer
        self._max_tokens = spec.max_tokens
        self._most = max_characters(spec.max_tokens)
        self._segments = spec.segments
        self._folder = spec.folder
        self._room = spec.max_tokens - tokenizer.num_special_tokens_to_add(is_pair=False)
        self._room_of_pair = spec.max_tokens - tokenizer.num_special_tokens_to_add(is_pair=True)
        if min(self._room, self._room_of_pair) < 1:
            raise unusable(
                spec.folder, f"the {spec.max_tokens} tokens that it reads leave no room for a text"
            )
        self.vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)
        if spec.vocabulary is not None and spec.vocabulary < self.vocabulary:
            raise smaller_weights(spec.folder, self.vocabulary, spec.vocabulary)
        if spec.pad >= (spec.vocabulary or self.vocabulary):
            raise unusable(spec.folder, f"it has no token {spec.pad}, with which texts are to be filled up")

    def rows(
        self, texts: Sequence[str], *, truncate: bool, left: bool, first: int = 0
    ) -> tuple[list[ModelInput], list[bool]]:
        """Tokenize texts. Returns the input of each, and whether it was truncated; `first` is the index of the first text.

        Raises:
            InvalidRequest: a text is too long and may not be truncated, or is too long to be truncated exactly.
            RuntimeFailed: the tokenizer's file lacks what a text needs.
        """
        with self._cutting():
            parts = [
                self._excerpt(text, self._room + 1, f"Text {first + index}", left=left)
                for index, text in enumerate(texts)
            ]
            rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(parts)]
            cut = [len(row) > self._max_tokens for row in rows]
            long = [index for index, too_long in enumerate(cut) if too_long]
            if long and not truncate:
                index = long[0]
                whole = len(parts[index]) == len(texts[index])
                raise InvalidRequest(
                    f"Text {first + index} has {len(rows[index]) if whole else f'more than {self._max_tokens}'} tokens; "
                    f"the model reads at most {self._max_tokens}.",
                    remedy="Shorten or chunk the text, or allow truncation.",
                    cause=Cause.INPUT_TOO_LONG,
                )
            for index in long:
                rows[index] = self._cut(parts[index], left=left)
        return [ModelInput(ids) for ids in rows], cut

    def query(self, text: str) -> EncodedQuery:
        """Tokenize a query, for `pairs`.

        Raises:
            InvalidRequest: it is too long to be tokenized.
            RuntimeFailed: the tokenizer's file lacks what it needs.
        """
        if len(text) > self._most:
            raise InvalidRequest(
                f"The query has more than {self._most:,} characters.",
                remedy="Shorten the query.",
                cause=Cause.INPUT_TOO_LONG,
            )
        with self._cutting():
            length = len(self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0])
            part = self._excerpt(text, self._room_of_pair, "The query")
            return EncodedQuery(part, self._encode([part])[0], length)

    def pairs(
        self, query: EncodedQuery, texts: Sequence[str], *, truncate: bool, first: int = 0
    ) -> tuple[list[ModelInput], list[bool]]:
        """Join the query with each text. Returns the inputs, and whether each was truncated: the longer of the two first.

        Raises:
            InvalidRequest: a pair is too long and may not be truncated, or a text is too long to be truncated exactly.
            RuntimeFailed: the tokenizer's file lacks what a text needs.
        """
        need = max(self._room_of_pair, query.length) + 1  # as many as are needed to see which is longer
        with self._cutting():
            parts = [self._excerpt(text, need, f"Text {first + index}") for index, text in enumerate(texts)]
            encodings = self._encode(parts)
            kept = [_longest_first(self._room_of_pair, query.length, len(each)) for each in encodings]
            cut = [
                lengths != (query.length, len(each)) for lengths, each in zip(kept, encodings, strict=True)
            ]
            if any(cut) and not truncate:
                raise self._too_long_together(first + cut.index(True))
            rows = [self._pair(query, each, *lengths) for lengths, each in zip(kept, encodings, strict=True)]
        return rows, cut

    def prompts(
        self,
        template: RerankTemplate,
        query: str,
        texts: Sequence[str],
        *,
        truncate: bool,
        first: int = 0,
        instruction: str | None = None,
    ) -> tuple[list[ModelInput], list[bool]]:
        """Write the prompt of a reranker for each text. Returns the inputs, and whether each text was truncated.

        Raises:
            InvalidRequest: a text is too long and may not be truncated, or the query leaves no room for texts.
            RuntimeFailed: the tokenizer's file lacks what a text needs.
        """
        before, after = template.around(query, instruction)
        with self._cutting():
            end = self._encode([after])[0].ids
            room = self._max_tokens - len(end)
            if len(self._encode([template.begin + before])[0].ids) >= room:
                raise InvalidRequest(
                    f"The query and the instruction leave no room for a text: the model reads {self._max_tokens} tokens.",
                    remedy="Shorten the query or the instruction.",
                    cause=Cause.INPUT_TOO_LONG,
                )
            parts = [
                self._excerpt(text, room + 1, f"Text {first + index}") for index, text in enumerate(texts)
            ]
            beginnings = [
                each.ids for each in self._encode([template.begin + before + part for part in parts])
            ]
        cut = [len(ids) > room for ids in beginnings]
        if any(cut) and not truncate:
            raise self._too_long_together(first + cut.index(True))
        return [ModelInput(ids[:room] + end) for ids in beginnings], cut

    def id_of(self, token: str) -> int | None:
        """The id of a token, `None` if there is none."""
        return self._tokenizer.token_to_id(token)

    def tokens(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """The tokens of each text, not truncated. A token's text is its part of the input."""
        with self._cutting():
            encodings = self._encode(texts, special=special)
        return [
            [
                Token(id_, word, True, None, None)
                if mark
                else Token(id_, text[start:stop], False, start, stop)
                for id_, word, mark, (start, stop) in zip(
                    encoding.ids,
                    encoding.tokens,
                    encoding.special_tokens_mask,
                    encoding.offsets,
                    strict=True,
                )
            ]
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _too_long_together(self, index: int) -> InvalidRequest:
        return InvalidRequest(
            f"Text {index} and the query have more than the {self._max_tokens} tokens that the model reads.",
            remedy="Shorten or chunk the text, or allow truncation.",
            cause=Cause.INPUT_TOO_LONG,
        )

    @contextlib.contextmanager
    def _cutting(self) -> Iterator[None]:
        """Turn errors of the tokenizer, which some texts cause in incomplete files, into errors of the call."""
        try:
            yield
        except InvalidRequest:
            raise
        except Exception as error:  # the library raises plain Exception
            raise unusable(self._folder, f"{TOKENIZER} cannot cut every text into tokens") from error

    def _excerpt(self, text: str, need: int, called: str, *, left: bool = False) -> str:
        try:
            return excerpt(self._tokenizer, text, need, self._most, left=left)
        except ExcerptUndecided as error:
            raise InvalidRequest(
                f"{called} is too long to truncate: it has more than {self._most:,} characters and too few words in "
                "them to determine which tokens the model reads.",
                remedy="Send it in chunks.",
                cause=Cause.INPUT_TOO_LONG,
            ) from error

    def _encode(self, texts: Sequence[str], *, special: bool = False) -> list[Encoding]:
        return self._tokenizer.encode_batch(list(texts), add_special_tokens=special)

    def _cut(self, text: str, *, left: bool) -> list[int]:
        encoding = self._encode([text])[0]
        encoding.truncate(self._room, direction="left" if left else "right")
        return self._tokenizer.post_process(encoding, add_special_tokens=True).ids

    def _pair(self, query: EncodedQuery, text: Encoding, of_query: int, of_text: int) -> ModelInput:
        asked = query.encoding
        if of_query < len(asked):
            asked = self._encode([query.part])[0]
            asked.truncate(of_query)
        text.truncate(of_text)
        pair = self._tokenizer.post_process(asked, text, add_special_tokens=True)
        return ModelInput(pair.ids, pair.type_ids if self._segments else None)


def _longest_first(room: int, query: int, text: int) -> tuple[int, int]:
    """How many tokens of each are kept: the longer one is truncated until both fit or have the same length, then both are."""
    half = room // 2
    if query + text <= room:
        return query, text
    if query <= half:
        return query, room - query
    if text <= half:
        return room - text, text
    return (room - half, half) if query > text else (half, room - half)
