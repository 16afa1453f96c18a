"""Cutting texts into the tokens of a model, with its own tokenizer file."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from tokenizers import Tokenizer

from hubgate.domain.calls import Token
from hubgate.domain.errors import Cause, InvalidRequest
from hubgate.runtime.files import TOKENIZER, TokenizerBroken, unusable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hubgate.runtime.folder import Recipe


_LONG = 32
"""Characters a token; texts hardly ever have more, and then cost more time."""


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model's folder, which neither cuts nor pads.

    Raises:
        TokenizerBroken: its file cannot be read.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the library raises plain Exception
        raise TokenizerBroken(f"{folder / TOKENIZER} cannot be read") from error
    # The file's own, 128 in MiniLM's, are left from its training; what the model's other files say counts.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def count(tokenizer: Tokenizer, text: str, limit: int | None) -> int:
    """The tokens of a text, special ones included. Beyond `limit` the number only says that it is exceeded.

    Raises:
        TokenizerBroken: its file lacks what this text needs.
    """
    try:
        if (
            limit is not None and len(text) > _LONG * limit
        ):  # megabytes take seconds, and a hundred times the memory
            beginning = len(tokenizer.encode_batch_fast([text[: _LONG * limit]])[0])
            # The last word may have been cut into more tokens than the whole word has.
            if beginning > limit + _LONG:
                return beginning
        return len(tokenizer.encode_batch_fast([text])[0])
    except Exception as error:  # the library raises plain Exception
        raise TokenizerBroken(f"{TOKENIZER} cannot cut every text into tokens") from error


class Row(NamedTuple):
    """What a model reads of one text, or of a query and a text."""

    ids: list[int]
    """Special tokens included."""
    kinds: list[int] | None = None
    """Of which segment each token is; `None` if all are of the first."""


class Tokens:
    """The tokenizer of a recipe. Safe to use from several threads."""

    def __init__(self, recipe: Recipe) -> None:
        try:
            tokenizer = open_tokenizer(recipe.folder)
        except TokenizerBroken as error:
            raise unusable(recipe.folder, f"{TOKENIZER} cannot be read") from error
        self._tokenizer = tokenizer
        self._max_tokens = recipe.max_tokens
        self._segments = recipe.segments
        self._folder = recipe.folder
        self._room = recipe.max_tokens - tokenizer.num_special_tokens_to_add(is_pair=False)
        pairs = tokenizer.num_special_tokens_to_add(is_pair=True)
        if min(self._room, recipe.max_tokens - pairs) < 1:
            raise unusable(
                recipe.folder, f"the {recipe.max_tokens} tokens that it reads leave no room for a text"
            )
        self.vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)
        if recipe.vocabulary is not None and recipe.vocabulary < self.vocabulary:
            raise unusable(recipe.folder, "its tokenizer has more tokens than its weights")
        if recipe.pad >= (recipe.vocabulary or self.vocabulary):
            raise unusable(
                recipe.folder, f"it has no token {recipe.pad}, with which texts are to be filled up"
            )
        self._pairs = Tokenizer.from_str(tokenizer.to_str())
        self._pairs.enable_truncation(recipe.max_tokens, strategy="longest_first")

    def rows(self, texts: Sequence[str], *, truncate: bool, left: bool) -> tuple[list[Row], list[bool]]:
        """The row of each text, and whether it was cut to the model's length.

        Raises:
            InvalidRequest: a text is too long and may not be cut.
            RuntimeFailed: the tokenizer's file lacks what a text needs.
        """
        with self._cutting():
            rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        cut = [len(row) > self._max_tokens for row in rows]
        long = [index for index, too_long in enumerate(cut) if too_long]
        if long and not truncate:
            raise InvalidRequest(
                f"Text {long[0]} has {len(rows[long[0]])} tokens; the model reads at most {self._max_tokens}.",
                remedy="Shorten or chunk the text, or allow truncation.",
                cause=Cause.INPUT_TOO_LONG,
            )
        with self._cutting():
            for index in long:
                rows[index] = self._cut(texts[index], left=left)
        return [Row(ids) for ids in rows], cut

    def pairs(self, query: str, texts: Sequence[str], *, truncate: bool) -> tuple[list[Row], list[bool]]:
        """The row of the query with each text, and whether it was cut: always the longer of the two, token by token.

        Raises:
            InvalidRequest: a pair is too long and may not be cut.
            RuntimeFailed: the tokenizer's file lacks what a text needs.
        """
        with self._cutting():
            encodings = self._pairs.encode_batch([(query, text) for text in texts])
        cut = [bool(encoding.overflowing) for encoding in encodings]
        if any(cut) and not truncate:
            raise InvalidRequest(
                f"Text {cut.index(True)} and the query have more than the {self._max_tokens} tokens that the model reads.",
                remedy="Shorten or chunk the text, or allow truncation.",
                cause=Cause.INPUT_TOO_LONG,
            )
        return [
            Row(encoding.ids, encoding.type_ids if self._segments else None) for encoding in encodings
        ], cut

    @contextlib.contextmanager
    def _cutting(self) -> Iterator[None]:
        """What the tokenizer's file lacks shows with the texts that need it, and is no end of the worker."""
        try:
            yield
        except Exception as error:  # the library raises plain Exception
            raise unusable(self._folder, f"{TOKENIZER} cannot cut every text into tokens") from error

    def _cut(self, text: str, *, left: bool) -> list[int]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        encoding.truncate(self._room, direction="left" if left else "right")
        return self._tokenizer.post_process(encoding, add_special_tokens=True).ids

    def tokens(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """The tokens of each text, uncut; a token's text is the part of the input it stands for."""
        with self._cutting():
            encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=special)
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
