"""Splits the result of a batch among its calls, and joins the results of several requests into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, repeat
from operator import sub
from typing import Any, TypeVar

from msgspec.structs import replace

from hubgate.core.vectors import in_encoding
from hubgate.domain.calls import CachedVector, Encoding, FreshVectors, ItemResult, Vectors

BYTES_PER_TOKEN = 3
"""English has about four bytes per token, Chinese about three. Elasticsearch assumes three characters per token."""

_T = TypeVar("_T")
P = TypeVar("P", bound=ItemResult)


def utf8_size(text: str) -> int:
    """The size of a text in UTF-8, from which its token count is estimated."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def utf8_sizes(texts: Sequence[str]) -> list[int]:
    """`utf8_size` of each text."""
    return list(map(len if all(map(str.isascii, texts)) else utf8_size, texts))


def estimate_tokens(size: int, *, texts: int) -> int:
    """A high estimate of the tokens of several texts with `size` bytes in total."""
    return max(texts, -(-size // BYTES_PER_TOKEN))


def text_counts(
    vectors: Vectors, weights: Sequence[int]
) -> tuple[Sequence[int] | None, bool, Sequence[bool] | None]:
    """The token count of each text, whether they are exact, and whether each was truncated, as far as they are known.

    If the engine returned only a total of tokens, it is divided in proportion to `weights`, the sizes of the texts, and
    is no longer exact. From the number of truncated texts, it is known which ones only if that is none or all.
    """
    tokens, exact, flags = vectors.text_tokens, vectors.exact, vectors.text_truncated
    if tokens is None and vectors.tokens is not None:
        tokens, exact = _divided(vectors.tokens, weights), exact and len(weights) == 1
    if flags is None and vectors.truncated in {0, len(weights)}:
        flags = [bool(vectors.truncated)] * len(weights)
    return tokens, exact, flags


def cache_entries(fresh: FreshVectors) -> Mapping[bytes, CachedVector]:
    """The cache entries of vectors, by key. They are made once."""
    if fresh.entries is None:
        fresh.entries = _entries_of(fresh)
    return fresh.entries


def _entries_of(fresh: FreshVectors) -> dict[bytes, CachedVector]:
    vectors = fresh.vectors
    tokens, exact, flags = text_counts(vectors, utf8_sizes(fresh.texts))
    entries = map(
        CachedVector,
        vectors.items,
        tokens or repeat(None),
        repeat(exact),
        flags or repeat(None),
        repeat(vectors.encoding),
    )
    return dict(zip(fresh.keys, entries, strict=True))


def split_vectors(
    vectors: Vectors, weights: Sequence[Sequence[int]], waited: Sequence[float]
) -> list[Vectors]:
    """Split the vectors of a batch among its calls.

    Args:
        vectors: of all calls.
        weights: the sizes of the texts of each call. A total of tokens is divided in proportion to them.
        waited: the time of each call in the queue.
    """
    tokens, flags = vectors.text_tokens, vectors.text_truncated
    if flags is None and vectors.truncated is not None:
        flags = text_counts(vectors, list(chain.from_iterable(weights)))[2]
    counts: Sequence[int | None] = [None] * len(weights)
    if tokens is None and vectors.tokens is not None:
        counts = _divided_among_calls(vectors.tokens, weights)
    exact = vectors.exact and (tokens is not None or vectors.tokens is None)
    shares, stop = [], 0
    for sizes, count, seconds in zip(weights, counts, waited, strict=True):
        start, stop = stop, stop + len(sizes)
        text_tokens = None if tokens is None else tokens[start:stop]
        text_truncated = None if flags is None else flags[start:stop]
        share = Vectors(
            items=vectors.items[start:stop],
            encoding=vectors.encoding,
            tokens=count if text_tokens is None else sum(text_tokens),
            exact=exact,
            truncated=None if text_truncated is None else sum(text_truncated),
            warnings=vectors.warnings,
            text_tokens=text_tokens,
            text_truncated=text_truncated,
            waited=seconds,
            dimensions=vectors.dimensions,
        )
        shares.append(share)
    return shares


def join_vectors(shares: Sequence[Vectors]) -> Vectors:
    """Join results in order. A count that is unknown in one of them is unknown in the whole."""
    if len(shares) == 1:
        return shares[0]
    encoding = shares[0].encoding
    if any(share.encoding is not encoding for share in shares):
        encoding = Encoding.F32
        shares = [in_encoding(share, encoding) for share in shares]
    return Vectors(
        items=list(chain.from_iterable(share.items for share in shares)),
        encoding=encoding,
        tokens=_sum_if_known([share.tokens for share in shares]),
        exact=all(share.exact for share in shares),
        truncated=_sum_if_known([share.truncated for share in shares]),
        warnings=tuple(dict.fromkeys(chain.from_iterable(share.warnings for share in shares))),
        text_tokens=_chain_if_known([share.text_tokens for share in shares]),
        text_truncated=_chain_if_known([share.text_truncated for share in shares]),
        waited=max(share.waited for share in shares),
        dimensions=shares[0].dimensions if len({share.dimensions for share in shares}) == 1 else None,
    )


def split_items(result: P, weights: Sequence[Sequence[int]], waited: Sequence[float]) -> list[P]:
    """`split_vectors` for results without token counts per text.

    The total is divided in proportion to `weights`, which has the sizes of the texts of each call.
    """
    tokens: Sequence[int | None] = [result.tokens] * len(weights)
    if len(weights) > 1 and result.tokens is not None:
        tokens = _divided_among_calls(result.tokens, weights)
    shares, stop = [], 0
    for parts, count, seconds in zip(weights, tokens, waited, strict=True):
        start, stop = stop, stop + len(parts)
        share: dict[str, Any] = {"items": result.items[start:stop], "tokens": count, "waited": seconds}
        shares.append(replace(result, exact=result.exact and len(weights) == 1, quota=None, **share))
    return shares


def join_items(shares: Sequence[P]) -> P:
    """`join_vectors` for results without text counts."""
    if len(shares) == 1:
        return shares[0]
    items: dict[str, Any] = {"items": list(chain.from_iterable(share.items for share in shares))}
    return replace(
        shares[0],
        **items,
        tokens=_sum_if_known([share.tokens for share in shares]),
        exact=all(share.exact for share in shares),
        waited=max(share.waited for share in shares),
    )


def _divided_among_calls(total: int, weights: Sequence[Sequence[int]]) -> list[int]:
    # One more for each text, as `_divided` adds only one for each call.
    return _divided(total, [sum(sizes) + len(sizes) - 1 for sizes in weights])


def _divided(total: int, weights: Sequence[int]) -> list[int]:
    """Divide a total in proportion to the weights, into whole numbers that sum to it."""
    whole = sum(weights) + len(weights)  # even an empty text has special tokens
    bounds = [total * (done + count) // whole for count, done in enumerate(accumulate(weights), 1)]
    return list(map(sub, bounds, [0, *bounds[:-1]]))


def _sum_if_known(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _chain_if_known(parts: Sequence[Sequence[_T] | None]) -> list[_T] | None:
    known = [part for part in parts if part is not None]
    return list(chain.from_iterable(known)) if len(known) == len(parts) else None
