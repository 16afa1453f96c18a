"""The compiled and the pure codec of vectors: each against Python's own arithmetic, and one against the other."""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import math
import struct
import subprocess
import sys
from decimal import Decimal, localcontext
from types import ModuleType
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubgate.core.vector_codec import pure

compiled: Any = None
with contextlib.suppress(ImportError):
    compiled = importlib.import_module("hubgate.core.vector_codec.compiled")

if_compiled = pytest.mark.skipif(compiled is None, reason="hubgate was built without a C compiler")
CODECS: list[ModuleType] = [pure] if compiled is None else [pure, compiled]
both = pytest.mark.parametrize(
    "codec", [pure, pytest.param(compiled, marks=if_compiled)], ids=["pure", "compiled"]
)

INFINITY_BITS = 0x7F800000
SIGN_BIT = 1 << 31
LARGEST = "340282346638528859811704183484516925440"


def single(bits: int) -> float:
    return cast("float", struct.unpack("<f", bits.to_bytes(4, "little"))[0])


def packed(numbers: list[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


# Of any exponent, and near the powers of two, where the distance to the next number changes.
finite_bits = st.one_of(
    st.integers(0, INFINITY_BITS - 1),
    st.integers(0, 254).flatmap(
        lambda exponent: st.integers(-2, 2).map(lambda step: (exponent << 23) + step)
    ),
    st.integers(0, 1 << 23),  # zero and the subnormal numbers
    st.integers(0x35000000, 0x3F800000),  # what a vector of length 1 consists of
).map(lambda bits: min(max(bits, 0), INFINITY_BITS - 1))
bits_with_sign = st.tuples(finite_bits, st.booleans()).map(
    lambda pair: pair[0] | (SIGN_BIT if pair[1] else 0)
)


@given(bits=st.lists(bits_with_sign, max_size=8))
def test_f32_survives_json(bits: list[int]) -> None:
    item = b"".join(each.to_bytes(4, "little") for each in bits)
    for codec in CODECS:
        text = codec.to_json(item)
        assert all(reader.from_json(text) == item for reader in CODECS)
        assert packed(json.loads(text)) == item, "another parser reads the same numbers"


@given(bits=finite_bits)
@example(bits=0x0DA24260)  # 1e-30
@example(bits=0x00000001)
@example(bits=0x7F7FFF05)  # with fewer digits, it would not fit
def test_json_has_as_few_digits_as_single_precision_needs(bits: int) -> None:
    """The pure codec needs numpy for it, which is installed for the tests."""
    number = single(bits)
    enough = next(size for size in range(10) if python_reads([f"{number:.{size}e}"]) == packed([number]))
    for codec in CODECS:
        text = codec.to_json(packed([number]))[1:-1].decode()
        assert len(Decimal(text).normalize().as_tuple().digits) <= enough + 1


@both
@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], b"[]"),
        ([0.1, -1 / 3, 2e-8], b"[0.1,-0.33333334,2e-8]"),
        ([0.0, -0.0, 1, -16777216, 123456792], b"[0.0,-0.0,1.0,-16777216.0,123456790.0]"),
        ([1e-45, 1.17549435e-38, 0.000001], b"[1e-45,1.1754944e-38,0.000001]"),
    ],
)
def test_writes_numbers_as_other_json_writers_do(
    codec: ModuleType, numbers: list[float], text: bytes
) -> None:
    assert codec.to_json(packed(numbers)) == text


@both
@pytest.mark.parametrize("number", [math.nan, -math.nan, math.inf, -math.inf])
def test_refuses_to_write_numbers_that_are_not_finite(codec: ModuleType, number: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        codec.to_json(packed([0.5, number, 1]))


digits = st.text("0123456789", min_size=1, max_size=25)
number_texts = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "-"]),
        st.one_of(st.just("0"), st.builds(str.__add__, st.sampled_from("123456789"), digits)),
        st.one_of(st.just(""), digits.map(".{}".format), digits.map(".000{}".format)),
        st.one_of(
            st.just(""), st.builds("{}{}".format, st.sampled_from(["e", "E", "e-", "E+"]), st.integers(0, 60))
        ),
    ),
)

# What the compiled codec reads in a few steps, and a little more.
usual_texts = st.builds(
    "{}0.{}{}".format,
    st.sampled_from(["", "-"]),
    st.text("0123456789", min_size=6, max_size=22),
    st.sampled_from(["", "", "", "e-3", "E4"]),
)


@st.composite
def near_halves(draw: st.DrawFn) -> str:
    """The number half way between two of single precision, or one digit more or less than that."""
    bits = draw(finite_bits)
    with localcontext(prec=200):
        half = (Decimal(single(bits)) + Decimal(single(min(bits + 1, INFINITY_BITS - 1)))) / 2
        step = half.scaleb(-draw(st.integers(10, 40))) * draw(st.sampled_from([-1, 0, 0, 1]))
        return draw(st.sampled_from(["{:f}", "{:E}"])).format(half + step)


def python_reads(texts: list[str]) -> bytes | None:
    """Each number as a double, then in single precision; `None` if it does not fit."""
    try:
        numbers = [float(text) if set(text) & set(".eE") else int(text) for text in texts]
        return packed(cast("list[float]", numbers))
    except (OverflowError, struct.error):  # of a float, and of an integer
        return None


@given(texts=st.lists(st.one_of(number_texts, usual_texts, near_halves()), max_size=4))
@example(texts=["-0", "-0.0", "-0e1", "0E-400"])
@example(texts=["9007199254740993", "18446744073709551617", "1" + "0" * 38, "0." + "0" * 1500 + "1"])
@example(texts=["340282356779733623858607532500980858880"])  # the largest double that fits
@example(texts=["340282356779733661637539395458142568448"])  # the first that does not
@example(texts=["1e400"])
@example(texts=[f"-0.{'9' * count}" for count in range(1, 25)])
@example(texts=[f"0.{'0' * count}1" for count in range(25)])
def test_reads_json_as_python_does(texts: list[str]) -> None:
    text = f"[{', '.join(texts)}]{' ' * 30}".encode()  # the compiled codec looks ahead
    expected = python_reads(texts)
    for codec in CODECS:
        if expected is not None and pure.is_finite(expected):
            assert codec.from_json(text) == expected
            assert codec.count_json(text) == len(texts)
        else:
            with pytest.raises(ValueError):  # noqa: PT011 - of msgspec or of the codec
                codec.from_json(text)
            with pytest.raises(ValueError):  # noqa: PT011
                codec.count_json(text)


@both
def test_powers_of_two_survive_json(codec: ModuleType) -> None:
    """The next smaller number is half as far from them as the next larger one."""
    all_bits = [(exponent << 23) + step for exponent in range(1, 255) for step in (-1, 0, 1)]
    numbers = [single(bits) for bits in all_bits]
    text = codec.to_json(packed(numbers))
    assert all(reader.from_json(text) == packed(numbers) for reader in CODECS)


base64_texts = st.one_of(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=9).map(packed),
    st.binary(max_size=40),
).map(lambda item: b'"' + base64.b64encode(item) + b'"')
damaged_base64 = st.tuples(
    base64_texts, st.integers(0, 60), st.sampled_from(["=", "-", '"', "\\", "A", "é", "\x00"])
).map(lambda made: made[0][: made[1]] + made[2].encode() + made[0][made[1] :])


@given(texts=st.lists(st.one_of(base64_texts, base64_texts, damaged_base64), max_size=3))
@example(texts=[])
@example(texts=[b""])
@example(texts=[b'"'])
@example(texts=[b'"="'])
@example(texts=[b'"AACAfw=="'])  # infinity
@example(texts=[b'"AADAfw=="', b'"AACAPw=="'])  # NaN
@example(texts=[b' "AACAPw=="', b'"AAAAvw==" '])
@example(texts=[b'"AACAPw=="', b'"AACAPwAAgD8="'])  # different dimensions
@example(texts=[b'"AACAP==="'])
@example(texts=[b'"AAAAAAAAgD\\/lE44+"'])
@example(texts=[b"[0.5]"])
def test_reads_vectors_in_base64_and_nothing_else(texts: list[bytes]) -> None:
    expected = None
    with contextlib.suppress(ValueError, TypeError):
        items = [base64.b64decode(json.loads(text.decode()), validate=True) for text in texts]
        sizes = {len(item) for item in items}
        if len(sizes) == 1 and sizes != {0} and not any(size % 4 for size in sizes):
            expected = (items, sizes.pop() // 4) if all(map(pure.is_finite, items)) else None
    # A codec may leave strings with escapes to its caller.
    allowed = [expected, None] if any(b"\\" in text for text in texts) else [expected]
    assert all(codec.from_base64(texts) in allowed for codec in CODECS)


@both
@given(bits=st.lists(st.one_of(bits_with_sign, st.integers(0, 2**32 - 1)), max_size=6))
def test_tells_whether_all_numbers_are_finite(codec: ModuleType, bits: list[int]) -> None:
    item = b"".join(each.to_bytes(4, "little") for each in bits)
    assert codec.is_finite(item) == all(math.isfinite(single(each)) for each in bits)


halves = st.integers(-300, 300).map(lambda number: number / 2)


@if_compiled
@given(
    numbers=st.lists(st.floats(-200, 200, width=32) | halves, max_size=12),
    scale=st.sampled_from([1.0, 0.5, 25.4, 1e-40, 3.0]),
)
@example(numbers=[127.5, -127.5, 126.5, -126.5, 0.5, 1.5, -0.5], scale=1.0)
def test_compiled_int8_equals_the_pure_one(numbers: list[float], scale: float) -> None:
    assert compiled.int8(packed(numbers), scale) == pure.int8(packed(numbers), scale)


@both
@pytest.mark.parametrize(
    "text", [b"[1, null]", b"[true]", b"[NaN]", b'["a"]', b"[[1]]", b"[{}]", b"7", b'"a"', b"{}"]
)
def test_other_json_is_not_a_vector(codec: ModuleType, text: bytes) -> None:
    assert codec.count_json(text) is None
    with pytest.raises(ValueError):  # noqa: PT011 - of msgspec or of the codec
        codec.from_json(text)


@both
@pytest.mark.parametrize(
    "number",
    ["1e39", "1E39", "-1e+39", "1" + "0" * 39, "-4" + "0" * 38, "9" * 39 + ".5", "1" + "0" * 400, "1e400"],
)
def test_rejects_numbers_too_large_for_float32_in_any_notation(codec: ModuleType, number: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of msgspec or of the codec
        codec.count_json(f"[0.5, {number},-1]".encode())


@both
@pytest.mark.parametrize(
    "number", [LARGEST, f"-{LARGEST}.0", "3e38", "1e-400", f"0.{'7' * 60}", "9" * 38, "0"]
)
def test_accepts_numbers_within_float32_range(codec: ModuleType, number: str) -> None:
    assert codec.count_json(f" [0.5, {number},\n-1] ".encode()) == 3


rows = st.lists(st.sampled_from(["0.25", "-1e-7", "3", " 4.5 ", "1e39", "null", "[1]"]), max_size=3)
easy_rows = st.lists(st.sampled_from(["0.25", "-1e-7", "3", "\t4.5 "]), min_size=2, max_size=2)
bodies = st.lists(st.one_of(easy_rows, easy_rows, rows).map(lambda row: f" [{','.join(row)}]"), max_size=4)


@given(body=bodies)
def test_splits_vectors_of_equal_dimensions_and_nothing_else(body: list[str]) -> None:
    text = f"\n[{' ,'.join(body)}] ".encode()
    items = [row.strip().encode() for row in body]
    values = json.loads(text)
    sizes = {len(value) for value in values}
    numbers = [number for value in values for number in value]
    is_plain = len(sizes) == 1 and all(
        isinstance(number, int | float) and number < 1e38 for number in numbers
    )
    expected = (items, sizes.pop()) if is_plain else None
    assert all(codec.split_json(text) == expected for codec in CODECS)


@both
@pytest.mark.parametrize(
    "body", [b"", b"[", b"[[1]", b"[[1],]", b"[[1]]]", b"[1]", b"7", b'{"a": [[1]]}', b'[["a"]]']
)
def test_splits_nothing_else(codec: ModuleType, body: bytes) -> None:
    assert codec.split_json(body) is None


characters = st.text("[]0123456789.eE+-, \n\x00x")
damaged_numbers = st.builds(
    lambda texts, at, other: f"[{','.join(texts)[:at]}{other}{','.join(texts)[at:]}]{' ' * 30}",
    st.lists(usual_texts, min_size=1, max_size=3),
    st.integers(0, 70),
    characters.filter(lambda text: len(text) < 3),
)


@if_compiled
@given(text=st.one_of(characters, damaged_numbers).map(str.encode))
def test_compiled_codec_accepts_only_json(text: bytes) -> None:
    """The pure codec is given what msgspec has validated; this one validates."""
    count = None
    try:
        count = compiled.count_json(text)
    except ValueError:
        return
    if count is not None:
        assert len(json.loads(text)) == count


@if_compiled
def test_compiled_codec_reads_no_further_than_the_text() -> None:
    whole = b"[0.123456789,-0.12345678901234567,-7.5e-3,0.0123456789]"
    text = memoryview(whole + b"123456789" * 4)
    for end in range(len(whole)):
        assert compiled.count_json(text[:end]) is None
    assert compiled.count_json(text[: len(whole)]) == 4


def test_works_without_what_is_optional() -> None:
    program = (
        "import sys; sys.modules['hubgate.core.vector_codec.compiled'] = sys.modules['numpy'] = None\n"
        "from hubgate.core import vector_codec\n"
        "from hubgate.core.vectors import f32, f32_to_json, json_to_f32\n"
        "item = f32([0.1, -1 / 3, 2e-8])\n"
        "assert json_to_f32(f32_to_json(item)) == item\n"
        "assert not vector_codec.IS_COMPILED\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
