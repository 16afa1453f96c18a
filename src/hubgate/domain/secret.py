"""A secret that cannot be printed by accident."""

from __future__ import annotations

import hmac


class Secret:
    """A token in memory. `reveal` is the only way to its text, so that each use can be found."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The token itself, for sending or sealing."""
        return self._text

    def each(self) -> tuple[Secret, ...]:
        """The tokens in it, one a line: an endpoint may have several."""
        return tuple(Secret(line.strip()) for line in self._text.split("\n") if line.strip())

    @property
    def is_sendable(self) -> bool:
        """Whether there is a token in it, and an HTTP header can carry each."""
        tokens = self.each()
        return bool(tokens) and all("!" <= letter <= "~" for one in tokens for letter in one.reveal())

    @property
    def hint(self) -> str:
        """What may be shown: the last four characters, or nothing of a token too short to hide."""
        return f"…{self._text[-4:]}" if len(self._text) >= 12 else "…"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return f"Secret({self.hint!r})"

    __str__ = __repr__

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not to be pickled")
