"""Takes settings out of a JSON object, strictly, and says in Elasticsearch's words what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from hubgate.web.elastic.errors import invalid_settings, refusal

SERVICE = "hugging_face"
_MOST = 2**31 - 1
_NAMES = {str: "String", int: "Integer", dict: "Map", bool: "Boolean"}

T = TypeVar("T")


class Settings:
    """One JSON object whose known settings are taken out one by one.

    Values are never repeated in an error, for a token may stand under a mistyped name. `null` is the same as absent.
    """

    def __init__(self, where: str, given: dict[str, Any], problems: list[str] | None = None) -> None:
        self._where = where
        self._left = dict(given)
        self._inner: list[Settings] = []
        self._problems: list[str] = [] if problems is None else problems

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def require(self, **values: object) -> None:
        """Note which of these settings, once taken, are missing."""
        self._problems += [
            f"[{self._where}] does not contain the required setting [{key}]"
            for key, value in values.items()
            if value is None
        ]

    def text(self, key: str) -> str | None:
        """A text that is not empty."""
        value = self._take(key, str)
        if value is not None and not value.strip():
            self._problems.append(
                f"[{self._where}] Invalid value empty string. [{key}] must be a non-empty string"
            )
        return value

    def positive(self, key: str) -> int | None:
        """A whole number from 1 to 2³¹−1."""
        value = self._take(key, int)
        if value is not None and not 0 < value <= _MOST:
            self._problems.append(
                f"[{self._where}] Invalid value [{str(value)[:40]}]. [{key}] must be a positive integer"
            )
        return value

    def flag(self, key: str) -> bool | None:
        """True or false."""
        return self._take(key, bool)

    def choice(self, key: str, words: Iterable[str]) -> str | None:
        """One of some words, in any case; `None` too where it is none of them."""
        value, words = self._take(key, str), list(words)
        if value is None or value.lower() in words:
            return value and value.lower()
        self._problems.append(
            f"[{self._where}] Invalid value [{value[:200]}] received. [{key}] must be one of [{', '.join(words)}]"
        )
        return None

    def inner(self, key: str) -> Settings:
        """An object within; empty where it is absent."""
        inner = Settings(key, self._take(key, dict) or {}, self._problems)
        self._inner.append(inner)
        return inner

    def map(self, key: str) -> dict[str, Any] | None:
        """An object that something else reads."""
        return self._take(key, dict)

    def done(self) -> None:
        """All that is known has been taken, here and within.

        Raises:
            ElasticError: something is left, or some of it was missing or out of range.
        """
        for inner in self._inner:
            inner.done()
        if self._left:
            names = ", ".join(f"{key[:100]}=…" for key in list(self._left)[:20])
            raise refusal(f"Configuration contains settings [{{{names}}}] unknown to the [{SERVICE}] service")
        if self._problems:
            raise invalid_settings(self._problems)

    def _take(self, key: str, kind: type[T]) -> T | None:
        value = self._left.pop(key, None)
        if value is None or type(value) is kind:
            return value
        raise refusal(
            f"field [{key}] is not of the expected type. Its value cannot be converted to a [{_NAMES[kind]}]"
        )
