"""Arithmetic on the bytes of vectors."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core import vectors
from hubgate.domain.calls import Encoding, Vectors
from hubgate.domain.errors import Cause, UpstreamUnreadable

singles = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(singles))
def test_counts_dimensions_in_both_encodings(numbers: list[float]) -> None:
    item = vectors.f32(numbers)
    assert vectors.dimensions(item, Encoding.F32) == len(numbers)
    assert vectors.dimensions(json.dumps(numbers).encode(), Encoding.JSON) == len(numbers)


@given(st.lists(st.floats(width=32)))
def test_is_finite_checks_every_number(numbers: list[float]) -> None:
    item = struct.pack(f"<{len(numbers)}f", *numbers)
    assert vectors.is_finite(item) is all(map(math.isfinite, numbers))


@given(st.lists(singles, min_size=1))
def test_f32_to_json_round_trip_is_lossless(numbers: list[float]) -> None:
    item = vectors.f32(numbers)
    assert vectors.json_to_f32(vectors.f32_to_json(item)) == item


def test_f32_to_json_has_as_few_digits_as_single_precision_needs() -> None:
    assert vectors.f32_to_json(vectors.f32([0.1, -1 / 3, 2e-8])) == b"[0.1,-0.33333334,2e-8]"


def test_f32_to_json_is_lossless_without_numpy() -> None:
    program = (
        "import sys; sys.modules['numpy'] = None\n"
        "from hubgate.core.vectors import f32, f32_to_json, json_to_f32\n"
        "item = f32([0.1, -1 / 3, 2e-8])\n"
        "assert json_to_f32(f32_to_json(item)) == item\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@given(st.lists(singles))
def test_base64_round_trip_is_lossless(numbers: list[float]) -> None:
    item = vectors.f32(numbers)
    assert vectors.base64_to_f32(b'"' + vectors.f32_to_base64(item) + b'"') == item


@pytest.mark.parametrize("item", [b"[1, null]", b"[1e999]", b"[1e300]", b"[NaN]", b'["a"]', b"[[1]]", b"7"])
def test_rejects_json_without_finite_numbers(item: bytes) -> None:
    with pytest.raises(UpstreamUnreadable) as caught:
        vectors.json_to_f32(item)
    assert caught.value.cause is Cause.NOT_A_NUMBER


LARGEST = "340282346638528859811704183484516925440"


@pytest.mark.parametrize(
    "number",
    ["1e39", "1E39", "-1e+39", "1" + "0" * 39, "-4" + "0" * 38, "9" * 39 + ".5", "1" + "0" * 400, "1e400"],
)
def test_rejects_numbers_too_large_for_float32_in_any_notation(number: str) -> None:
    with pytest.raises(UpstreamUnreadable) as caught:
        vectors.check_range(f"[0.5, {number},-1]".encode())
    assert caught.value.cause is Cause.NOT_A_NUMBER


@pytest.mark.parametrize(
    "number", [LARGEST, f"-{LARGEST}.0", "3e38", "1e-400", f"0.{'7' * 60}", "9" * 38, "0"]
)
def test_accepts_numbers_within_float32_range(number: str) -> None:
    vectors.check_range(f"[0.5, {number},-1]".encode())


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
