"""Numbered pages of a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

PER_PAGE = 50

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class NumberedPage(Generic[_T]):
    items: Sequence[_T]
    number: int
    """From 1."""
    pages: int


def numbered_page(found: Sequence[_T], query: Mapping[str, str]) -> NumberedPage[_T]:
    """The page that a query string asks for by `page`: the first one if it is invalid, at most the last one."""
    given = query.get("page", "")
    asked = int(given) if given.isascii() and given.isdigit() and len(given) < 9 else 1
    pages = max(1, -(-len(found) // PER_PAGE))
    number = min(pages, max(1, asked))
    return NumberedPage(found[(number - 1) * PER_PAGE : number * PER_PAGE], number, pages)
