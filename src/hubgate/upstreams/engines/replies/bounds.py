"""How large the reply to a request can be, in bytes: generous, and yet far from what a broken server can send.

The sizes are those of JSON as servers write it. A text may come back six times as long, each byte of it escaped.
"""

from __future__ import annotations

from hubgate.upstreams.http.messages import HttpRequest

_REST = 256 * 1024
"""Everything else; and room for a larger model in place of the registered one to be recognised as such."""
_NUMBER = 32
"""One number of a vector, at most, with its comma."""
_UNKNOWN_DIMENSIONS = 16_384
"""Assumed until they are known."""
_SCORE = 512
_ESCAPED = 6
_WORDS = 2 * 1024 * 1024
"""One sparse vector: 40,000 words with their weights."""
_TOKEN = 128
"""One token, for each byte of a request: no token is shorter than a byte."""


def vectors(count: int, dimensions: int | None) -> int:
    """The bound of so many vectors; `dimensions` is `None` before they are known."""
    return _REST + count * (dimensions or _UNKNOWN_DIMENSIONS) * _NUMBER


def most_vectors(limit: int, dimensions: int | None) -> int:
    """How many vectors one reply may have so that `vectors` is within a limit; one at the least."""
    return max(1, (limit - _REST) // ((dimensions or _UNKNOWN_DIMENSIONS) * _NUMBER))


def scores(count: int, request: HttpRequest) -> int:
    """The bound of so many scores; some servers send the texts along."""
    return _REST + count * _SCORE + len(request.body) * _ESCAPED


def sparse_vectors(count: int) -> int:
    """The bound of so many sparse vectors."""
    return _REST + count * _WORDS


def tokens(request: HttpRequest) -> int:
    """The bound of all tokens of the texts in a request."""
    return _REST + len(request.body) * _TOKEN
