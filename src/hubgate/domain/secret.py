"""A secret that cannot be printed or logged by accident."""

from __future__ import annotations

import hmac


class Secret:
    """A token. Only `reveal` returns its text, so that every use can be searched for."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def each(self) -> tuple[Secret, ...]:
        """The tokens, one per line: an endpoint may have several."""
        return tuple(Secret(line.strip()) for line in self._text.split("\n") if line.strip())

    @property
    def is_sendable(self) -> bool:
        """Whether it contains at least one token, and all are valid in an HTTP header."""
        tokens = self.each()
        return bool(tokens) and all("!" <= char <= "~" for token in tokens for char in token.reveal())

    @property
    def hint(self) -> str:
        """The last four characters, for display; none if the token is short."""
        return f"…{self._text[-4:]}" if len(self._text) >= 12 else "…"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return f"Secret({self.hint!r})"

    __str__ = __repr__

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret cannot be pickled")
