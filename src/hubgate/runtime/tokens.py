"""Cutting texts into the tokens of a model, with its own tokenizer file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from hubgate.domain.calls import Token
from hubgate.domain.errors import Cause, InvalidRequest
from hubgate.runtime.folder import TOKENIZER, unusable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.runtime.folder import Recipe


class Tokens:
    """The tokenizer of a recipe. Safe to use from several threads."""

    def __init__(self, recipe: Recipe) -> None:
        try:
            tokenizer = Tokenizer.from_file(str(recipe.folder / TOKENIZER))
        except Exception as error:  # the library raises plain Exception
            raise unusable(recipe.folder, f"{TOKENIZER} cannot be read") from error
        # The file's own, 128 in MiniLM's, are left from its training; the recipe's length counts.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._max_tokens = recipe.max_tokens
        self._room = recipe.max_tokens - tokenizer.num_special_tokens_to_add(is_pair=False)
        self.vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)

    def ids(self, texts: Sequence[str], *, truncate: bool, left: bool) -> tuple[list[list[int]], list[bool]]:
        """The token ids of each text, special ones included, and whether it was cut to the model's length.

        Raises:
            InvalidRequest: a text is too long and may not be cut.
        """
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        cut = [len(row) > self._max_tokens for row in rows]
        long = [index for index, too_long in enumerate(cut) if too_long]
        if long and not truncate:
            raise InvalidRequest(
                f"Text {long[0]} has {len(rows[long[0]])} tokens; the model reads at most {self._max_tokens}.",
                remedy="Shorten or chunk the text, or allow truncation.",
                cause=Cause.INPUT_TOO_LONG,
            )
        for index in long:
            rows[index] = self._cut(texts[index], left=left)
        return rows, cut

    def _cut(self, text: str, *, left: bool) -> list[int]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        encoding.truncate(self._room, direction="left" if left else "right")
        return self._tokenizer.post_process(encoding, add_special_tokens=True).ids

    def tokens(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """The tokens of each text, uncut; a token's text is the part of the input it stands for."""
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
