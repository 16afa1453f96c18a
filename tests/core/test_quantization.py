"""Quantized vectors, compared with numpy and with the formulas of sentence-transformers."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.quantization import RANGE, VectorFormat, quantize, quantized_length
from hubgate.core.vectors import f32
from hubgate.domain.calls import Encoding, Vectors
from hubgate.domain.endpoint import OutputDtype
from hubgate.domain.errors import InvalidRequest

NUMPY = {
    OutputDtype.FLOAT: np.float32,
    OutputDtype.INT8: np.int8,
    OutputDtype.UINT8: np.uint8,
    OutputDtype.BINARY: np.int8,
    OutputDtype.UBINARY: np.uint8,
}
# Below 1, so that no vector looks as if its server had quantized it.
numbers = st.floats(-1, 1, width=32)
vectors = st.lists(numbers, min_size=1, max_size=20)


def array(item: bytes, dtype: OutputDtype) -> np.ndarray[Any, Any]:
    return np.frombuffer(quantize(item, dtype), NUMPY[dtype])


def scaled(vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The documented formula, before rounding."""
    exact = vector.astype(np.float64)
    length = math.hypot(*exact)
    unit = exact / length if length else exact
    return unit * (127 * math.sqrt(len(exact)) / RANGE)


@given(vectors)
def test_int8_is_the_documented_formula(vector: list[float]) -> None:
    item = f32(vector)
    expected = scaled(np.frombuffer(item, "<f4"))
    got = array(item, OutputDtype.INT8)
    assert np.abs(got - np.clip(expected, -127, 127)).max() <= 0.5 + 1e-6


@given(st.lists(numbers, min_size=8, max_size=20).filter(any))
def test_int8_is_within_a_step_of_sentence_transformers_with_the_same_ranges(vector: list[float]) -> None:
    item = f32(vector)
    unit = np.frombuffer(item, "<f4").astype(np.float64)
    unit /= math.hypot(*unit)
    limit = RANGE / math.sqrt(len(unit))
    step = 2 * limit / 255
    buckets = np.clip(np.floor((unit + limit) / step), 0, 255)
    middles = (buckets + 0.5) * step - limit
    assert np.abs(array(item, OutputDtype.INT8) * limit / 127 - middles).max() <= 1.01 * step


@given(vectors, st.sampled_from([2.0**-20, 0.5]))
def test_int8_does_not_depend_on_the_length_of_the_vector(vector: list[float], factor: float) -> None:
    numbers = [number if abs(number) > 1e-30 else 0.0 for number in vector]
    shorter = f32([number * factor for number in numbers])
    assert quantize(shorter, OutputDtype.INT8) == quantize(f32(numbers), OutputDtype.INT8)


@given(vectors)
def test_a_negated_vector_has_negated_int8(vector: list[float]) -> None:
    one = array(f32(vector), OutputDtype.INT8).astype(int)
    assert (array(f32([-number for number in vector]), OutputDtype.INT8) == -one).all()


@given(vectors)
def test_uint8_is_int8_plus_128(vector: list[float]) -> None:
    item = f32(vector)
    assert (
        array(item, OutputDtype.UINT8).astype(int) == array(item, OutputDtype.INT8).astype(int) + 128
    ).all()


@given(vectors)
def test_ubinary_is_packbits_of_the_positive_numbers_and_binary_is_128_less(vector: list[float]) -> None:
    item = f32(vector)
    bits = np.packbits(np.frombuffer(item, "<f4") > 0)
    assert (array(item, OutputDtype.UBINARY) == bits).all()
    assert (array(item, OutputDtype.BINARY) == (bits.astype(int) - 128)).all()
    assert len(bits) == quantized_length(len(vector), OutputDtype.BINARY)


@given(vectors, st.sampled_from(list(OutputDtype)))
def test_json_and_base64_contain_the_same_numbers(vector: list[float], dtype: OutputDtype) -> None:
    item = f32(vector)
    vectors = Vectors(items=[item], encoding=Encoding.F32)
    listed = json.loads(VectorFormat(dtype).values(vectors)[0])
    packed = json.loads(VectorFormat(dtype, as_base64=True).values(vectors)[0])
    decoded = np.frombuffer(base64.b64decode(packed), NUMPY[dtype])
    assert (np.array(listed, NUMPY[dtype]) == decoded).all()
    assert len(listed) == quantized_length(len(vector), dtype)


def test_a_vector_of_zeros_is_zero() -> None:
    item = f32([0.0] * 9)
    assert array(item, OutputDtype.INT8).tolist() == [0] * 9
    assert array(item, OutputDtype.UINT8).tolist() == [128] * 9
    assert array(item, OutputDtype.UBINARY).tolist() == [0, 0]


def test_numbers_beyond_the_range_become_the_largest() -> None:
    item = f32([0.9, *[0.01] * 100, -0.9])
    got = array(item, OutputDtype.INT8)
    assert (got[0], got[-1]) == (127, -127)


def test_json_floats_of_the_server_are_not_converted() -> None:
    vectors = Vectors(items=[b"[0.10, 0.2]"], encoding=Encoding.JSON)
    assert VectorFormat().values(vectors) == [b"[0.10, 0.2]"]
    same = Vectors(items=[f32([0.1, 0.2])], encoding=Encoding.F32)
    for dtype in OutputDtype:
        in_base64 = VectorFormat(dtype, as_base64=True)
        assert in_base64.values(vectors) == in_base64.values(same)


@pytest.mark.parametrize(
    ("sent", "dtype"),
    [([-128, 0, 3, 127], OutputDtype.INT8), ([0, 255, 17, 2], OutputDtype.UINT8)],
)
def test_integers_of_the_server_are_returned_unchanged(sent: list[int], dtype: OutputDtype) -> None:
    assert array(f32(sent), dtype).tolist() == sent


@pytest.mark.parametrize(
    ("sent", "dtype"),
    [
        ([0, 255, 17, 2], OutputDtype.INT8),
        ([-1, 2, 3, 4], OutputDtype.UINT8),
        ([-128, 0, 3, 127], OutputDtype.BINARY),
        ([0, 255, 17, 2], OutputDtype.UBINARY),
    ],
)
def test_integers_of_the_server_are_not_quantized_again(sent: list[int], dtype: OutputDtype) -> None:
    with pytest.raises(InvalidRequest, match=f"cannot be quantized again to {dtype}"):
        quantize(f32(sent), dtype)


@pytest.mark.parametrize("factor", [1.0, 256.0])
def test_whole_numbers_that_are_not_bytes_are_quantized(factor: float) -> None:
    item = f32([0.0, factor, 0.0, -factor])
    assert array(item, OutputDtype.UBINARY).tolist() == [0b01000000]
