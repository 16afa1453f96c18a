"""Tokens to text while they are generated, up to a stop sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_INCOMPLETE = "\ufffd"
"""How an incomplete character is decoded."""


class TextBuilder:
    """The text of one reply. Special tokens are left out.

    Args:
        tokenizer: of the model.
        stops: sequences that end the text, and are not part of it.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stops if stop]
        self._ids: list[int] = []
        self._context = self._read = 0
        """The tokens from `_context` to `_read` have been decoded; they are decoded again with the next ones, because
        a token's text depends on those before it."""
        self._pending = ""
        """Text that may be the beginning of a stop sequence."""
        self.stop: str | None = None
        """The stop sequence that was found."""

    def add(self, ids: Iterable[int]) -> str:
        """Add tokens; returns the text that is certain now."""
        for token in ids:
            self._ids.append(token)
            self._pending += self._decode(final=False)
        return self._release(final=False)

    def end(self) -> str:
        """The rest of the text."""
        self._pending += self._decode(final=True)
        return self._release(final=True)

    def _decode(self, *, final: bool) -> str:
        before = self._tokenizer.decode(self._ids[self._context : self._read])
        text = self._tokenizer.decode(self._ids[self._context :])
        if len(text) <= len(before) or (text.endswith(_INCOMPLETE) and not final):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return text[len(before) :]

    def _release(self, *, final: bool) -> str:
        if self.stop is not None:
            return ""
        found = [(self._pending.index(stop), stop) for stop in self._stops if stop in self._pending]
        if found:
            end, self.stop = min(found)
            text, self._pending = self._pending[:end], ""
            return text
        keep = 0 if final else max(map(self._overlap, self._stops), default=0)
        cut = len(self._pending) - keep
        text, self._pending = self._pending[:cut], self._pending[cut:]
        return text

    def _overlap(self, stop: str) -> int:
        """How many characters at the end of the pending text are the beginning of a stop sequence."""
        longest = min(len(stop) - 1, len(self._pending))
        return next((size for size in range(longest, 0, -1) if self._pending.endswith(stop[:size])), 0)
