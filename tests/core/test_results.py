"""Splitting and joining results."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.results import (
    estimate_tokens,
    fill_text_counts,
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
def test_shares_of_a_total_sum_to_the_total(weights: list[int], total: int, at: int) -> None:
    whole = Vectors(items=[b"[1]"] * len(weights), encoding=Encoding.JSON, tokens=total, exact=True)
    middle = min(at, len(weights))
    shares = split_vectors(fill_text_counts(whole, weights), [middle, len(weights) - middle], [0.0, 0.0])
    assert sum(share.tokens or 0 for share in shares) == total
    assert all(not share.exact for share in shares) or len(weights) == 1


def test_what_is_known_of_each_text_is_divided_exactly() -> None:
    whole = replace(
        BARE, tokens=6, exact=True, text_tokens=[1, 2, 3], truncated=1, text_truncated=[False, True, False]
    )
    first, second = split_vectors(fill_text_counts(whole, [1, 1, 1]), [1, 2], [0.0, 0.5])
    assert (first.items, first.tokens, first.exact, first.truncated) == ([b"[1]"], 1, True, 0)
    assert (second.items, second.tokens, second.exact, second.truncated) == ([b"[2]", b"[3]"], 5, True, 1)
    assert join_vectors([first, second]) == replace(whole, waited=0.5)


def test_whose_text_was_cut_is_known_of_a_total_of_none_or_all() -> None:
    for total, share in ((0, 0), (3, 2), (1, None), (None, None)):
        shares = split_vectors(
            fill_text_counts(replace(BARE, truncated=total), [1, 1, 1]), [1, 2], [0.0, 0.5]
        )
        assert shares[1].truncated == share


def test_what_one_part_does_not_know_the_whole_does_not() -> None:
    known = replace(BARE, tokens=3, exact=True, truncated=0, text_tokens=[1, 1, 1], warnings=("a", "b"))
    whole = join_vectors([known, replace(BARE, warnings=("b", "c"))])
    assert (whole.tokens, whole.exact, whole.truncated, whole.text_tokens) == (None, False, None, None)
    assert whole.warnings == ("a", "b", "c")
    assert len(whole.items) == 6


def test_dimensions_are_those_of_every_part_if_they_are_the_same() -> None:
    one, two = split_vectors(fill_text_counts(replace(BARE, dimensions=1), [1, 1, 1]), [1, 2], [0.0, 0.0])
    assert join_vectors([one, two]).dimensions == 1
    assert join_vectors([one, replace(two, dimensions=2)]).dimensions is None


def test_parts_in_two_encodings_become_float32() -> None:
    whole = join_vectors([BARE, Vectors(items=[b"\0\0\x80?"], encoding=Encoding.F32)])
    assert whole.encoding is Encoding.F32
    assert whole.items[0] == whole.items[3] == b"\0\0\x80?"


def test_a_text_weighs_its_bytes_and_three_make_a_token() -> None:
    assert [utf8_size("abc"), utf8_size("é中"), utf8_size("\ud800")] == [3, 5, 3]
    assert [estimate_tokens(0, texts=2), estimate_tokens(7, texts=1)] == [2, 3]


def test_scores_are_cut_with_their_tokens_by_weight_and_joined_again() -> None:
    scores = Scores(items=[0.3, 0.2, 0.9], tokens=30, exact=True)
    first, second = split_items(scores, [[9], [9, 9]], [0.0, 1.5])
    assert (first.items, first.tokens, first.exact, first.waited) == ([0.3], 10, False, 0.0)
    assert (second.items, second.tokens, second.waited) == ([0.2, 0.9], 20, 1.5)
    whole = join_items([first, second])
    assert (whole.items, whole.tokens, whole.exact, whole.waited) == ([0.3, 0.2, 0.9], 30, False, 1.5)


def test_the_only_call_keeps_an_exact_count_and_an_unknown_one_stays_unknown() -> None:
    known, unknown = (SparseVectors(items=[b"{}"], tokens=tokens, exact=True) for tokens in (3, None))
    assert split_items(known, [[1]], [0.0])[0].exact
    assert split_items(unknown, [[1], []], [0.0, 0.0])[0].tokens is None
    assert join_items([known]) is known
    assert join_items([known, unknown]).tokens is None
