"""Splitting and joining results."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hubgate.core.results import (
    estimate_tokens,
    join_items,
    join_vectors,
    split_items,
    split_vectors,
    utf8_size,
)
from hubgate.domain.calls import Encoding, Scores, SparseVectors, Vectors

ITEMS = [b"[1]", b"[2]", b"[3]"]
BARE = Vectors(items=ITEMS, encoding=Encoding.JSON)


@given(
    weights=st.lists(st.integers(0, 10_000), min_size=1, max_size=40),
    total=st.integers(0, 100_000),
    at=st.integers(0, 40),
)
def test_split_token_counts_sum_to_the_total(weights: list[int], total: int, at: int) -> None:
    whole = Vectors(items=[b"[1]"] * len(weights), encoding=Encoding.JSON, tokens=total, exact=True)
    middle = min(at, len(weights))
    shares = split_vectors(whole, [weights[:middle], weights[middle:]], [0.0, 0.0])
    assert sum(share.tokens or 0 for share in shares) == total
    assert all(not share.exact for share in shares) or len(weights) == 1


def test_splits_per_text_counts_exactly() -> None:
    whole = replace(
        BARE, tokens=6, exact=True, text_tokens=[1, 2, 3], truncated=1, text_truncated=[False, True, False]
    )
    first, second = split_vectors(whole, [[1], [1, 1]], [0.0, 0.5])
    assert (first.items, first.tokens, first.exact, first.truncated) == ([b"[1]"], 1, True, 0)
    assert (second.items, second.tokens, second.exact, second.truncated) == ([b"[2]", b"[3]"], 5, True, 1)
    assert join_vectors([first, second]) == replace(whole, waited=0.5)


def test_truncated_count_splits_only_when_none_or_all_texts_are_truncated() -> None:
    for total, share in ((0, 0), (3, 2), (1, None), (None, None)):
        shares = split_vectors(replace(BARE, truncated=total), [[1], [1, 1]], [0.0, 0.5])
        assert shares[1].truncated == share


def test_joined_counts_are_unknown_if_any_part_is_unknown() -> None:
    known = replace(BARE, tokens=3, exact=True, truncated=0, text_tokens=[1, 1, 1], warnings=("a", "b"))
    whole = join_vectors([known, replace(BARE, warnings=("b", "c"))])
    assert (whole.tokens, whole.exact, whole.truncated, whole.text_tokens) == (None, False, None, None)
    assert whole.warnings == ("a", "b", "c")
    assert len(whole.items) == 6


def test_joined_dimensions_are_set_only_if_all_parts_agree() -> None:
    one, two = split_vectors(replace(BARE, dimensions=1), [[1], [1, 1]], [0.0, 0.0])
    assert join_vectors([one, two]).dimensions == 1
    assert join_vectors([one, replace(two, dimensions=2)]).dimensions is None


def test_joins_mixed_encodings_as_float32() -> None:
    whole = join_vectors([BARE, Vectors(items=[b"\0\0\x80?"], encoding=Encoding.F32)])
    assert whole.encoding is Encoding.F32
    assert whole.items[0] == whole.items[3] == b"\0\0\x80?"


def test_estimates_one_token_per_three_bytes() -> None:
    assert [utf8_size("abc"), utf8_size("é中"), utf8_size("\ud800")] == [3, 5, 3]
    assert [estimate_tokens(0, texts=2), estimate_tokens(7, texts=1)] == [2, 3]


def test_splits_scores_with_tokens_by_weight_and_joins_them() -> None:
    scores = Scores(items=[0.3, 0.2, 0.9], tokens=30, exact=True)
    first, second = split_items(scores, [[9], [9, 9]], [0.0, 1.5])
    assert (first.items, first.tokens, first.exact, first.waited) == ([0.3], 10, False, 0.0)
    assert (second.items, second.tokens, second.waited) == ([0.2, 0.9], 20, 1.5)
    whole = join_items([first, second])
    assert (whole.items, whole.tokens, whole.exact, whole.waited) == ([0.3, 0.2, 0.9], 30, False, 1.5)


def test_single_call_keeps_exact_count_and_unknown_count_stays_unknown() -> None:
    known, unknown = (SparseVectors(items=[b"{}"], tokens=tokens, exact=True) for tokens in (3, None))
    assert split_items(known, [[1]], [0.0])[0].exact
    assert split_items(unknown, [[1], []], [0.0, 0.0])[0].tokens is None
    assert join_items([known]) is known
    assert join_items([known, unknown]).tokens is None
