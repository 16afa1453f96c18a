"""Arithmetic on the bytes of vectors."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core import vectors
from hubgate.domain.calls import Encoding, Vectors
from hubgate.domain.errors import Cause, UpstreamUnreadable

NAN = struct.pack("<f", math.nan)
singles = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(singles))
def test_counts_dimensions_in_both_encodings(numbers: list[float]) -> None:
    item = vectors.f32(numbers)
    assert vectors.dimensions(item, Encoding.F32) == len(numbers)
    assert vectors.dimensions(json.dumps(numbers).encode(), Encoding.JSON) == len(numbers)


@given(st.lists(singles, min_size=1))
def test_f32_to_json_round_trip_is_lossless(numbers: list[float]) -> None:
    item = vectors.f32(numbers)
    assert vectors.json_to_f32(vectors.f32_to_json(item)) == item


@given(st.lists(singles))
def test_base64_round_trip_is_lossless(numbers: list[float]) -> None:
    item = vectors.f32(numbers)
    assert vectors.base64_to_f32(b'"' + vectors.f32_to_base64(item) + b'"') == item


@pytest.mark.parametrize("item", [b"[1, null]", b"[1e999]", b"[1e300]", b"[NaN]", b'["a"]', b"[[1]]", b"7"])
def test_rejects_json_without_finite_numbers(item: bytes) -> None:
    with pytest.raises(UpstreamUnreadable) as caught:
        vectors.json_to_f32(item)
    assert caught.value.cause is Cause.NOT_A_NUMBER


def test_dimensions_rejects_a_vector_that_is_not_finite() -> None:
    for item, encoding in ((b"[1e39]", Encoding.JSON), (b"[null]", Encoding.JSON), (NAN, Encoding.F32)):
        with pytest.raises(UpstreamUnreadable) as caught:
            vectors.dimensions(item, encoding)
        assert caught.value.cause is Cause.NOT_A_NUMBER


def test_rejects_writing_nan_as_json() -> None:
    with pytest.raises(UpstreamUnreadable):
        vectors.f32_to_json(NAN)


@pytest.mark.parametrize(
    "text",
    [
        b'"a"',
        b'"YWI="',
        b'"not base64!"',
        b'"AAAA="',
        b'"AAAAAA=="AAAA',
        b'"AAA\nAAA=="',
        b'"\xff"',
        b"AAAAAA==",
        b"null",
        b"[1]",
        b"",
    ],
)
def test_rejects_invalid_base64_vectors(text: bytes) -> None:
    with pytest.raises(UpstreamUnreadable):
        vectors.base64_to_f32(text)


def test_same_encoding_returns_vectors_unchanged() -> None:
    held = Vectors(items=[b"[1.0]"], encoding=Encoding.JSON)
    assert vectors.in_encoding(held, Encoding.JSON) is held


def test_changing_the_encoding_keeps_metadata() -> None:
    held = Vectors(items=[b"[1.0,0.5]"], encoding=Encoding.JSON, tokens=3, exact=True, warnings=("w",))
    changed = vectors.in_encoding(held, Encoding.F32)
    assert changed == Vectors(
        items=[vectors.f32([1, 0.5])], encoding=Encoding.F32, tokens=3, exact=True, warnings=("w",)
    )
    assert vectors.in_encoding(changed, Encoding.JSON).items == [b"[1.0,0.5]"]


def test_normalized_vector_has_length_one_and_same_direction() -> None:
    assert vectors.floats(vectors.l2_normalize(vectors.f32([3, 4]))) == pytest.approx((0.6, 0.8))


def test_normalizing_a_zero_vector_returns_it_unchanged() -> None:
    assert vectors.l2_normalize(vectors.f32([0, 0])) == vectors.f32([0, 0])


def test_mean_pooling_averages_token_vectors() -> None:
    assert vectors.floats(vectors.mean_pooled([[1, 2], [3, 4], [5, 9]])) == (3, 5)


@pytest.mark.parametrize("rows", [[], [[]], [[1, 2], [3]], [["a"]], [[1e300, 1], [1e300, 1]], [[None]]])
def test_mean_pooling_rejects_invalid_rows(rows: list[list[float]]) -> None:
    with pytest.raises(UpstreamUnreadable):
        vectors.mean_pooled(rows)


def test_mean_pooling_rejects_an_infinite_mean() -> None:
    with pytest.raises(UpstreamUnreadable) as caught:
        vectors.mean_pooled([[math.inf, 1.0]])
    assert caught.value.cause is Cause.NOT_A_NUMBER
