"""Validation errors are readable sentences."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from hubgate.domain.errors import InvalidRequest
from hubgate.web.schemas.validation import convert, validation_message


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Part(msgspec.Struct, forbid_unknown_fields=True):
    count: int = 0


class Whole(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    input: str | list[str]
    parts: list[Part] = []
    by_name: dict[str, Part] | None = None
    names: dict[Colour, str] | None = None
    colour: Colour | None = None
    version: Literal[1] = 1
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    share: Annotated[float, msgspec.Meta(lt=1)] = 0.5
    pair: tuple[str, str] | None = None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "[input] is required."),
        ([], "The request body must be an object, not an array."),
        ({1: 2}, "A name in the request body must be a string."),
        ({"input": 3}, "[input] must be a string or an array, not a number."),
        ({"input": ["a", None]}, "[input[1]] must be a string, not null."),
        ({"input": "a", "parts": [{"count": 2.5}]}, "an integer, not a decimal number."),
        (
            {"input": "a", "parts": [{"cuont": 2}]},
            "Unknown field [cuont] in [parts[0]]. Did you mean [count]? Valid fields: [count].",
        ),
        ({"input": "a", "by_name": {"x": 3}}, "A value in [by_name] must be an object, not a number."),
        ({"input": "a", "by_name": {"x": {"y": 1}}}, "Unknown field [y] in [by_name[...]]. Valid fields:"),
        (
            {"input": "a", "names": {"green": ""}},
            "A name in [names] must be one of [red, blue], not 'green'.",
        ),
        ({"input": "a", "colour": "green"}, "[colour] must be one of [red, blue], not 'green'."),
        ({"input": "a", "colour": 3}, "[colour] must be one of [red, blue], not a number."),
        ({"input": "a", "version": 2}, "[version] must be one of [1], not 2."),
        ({"input": "a", "dimensions": 0}, "[dimensions] must be at least 1."),
        ({"input": "a", "share": 1.0}, "[share] must be less than 1.0."),
        ({"input": "a", "x" * 5000: 1}, f"Unknown field [{'x' * 200}]. Valid fields: [input, parts,"),
        ({"inputs": "a"}, "Unknown field [inputs]. Did you mean [input]?"),
    ],
)
def test_validation_error_is_a_sentence_with_the_field(given: Any, expected: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        convert(given, Whole)
    assert expected in raised.value.message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"cuont": 1}, "Unknown field [cuont] in [part]."),
        ({"count": "a"}, "[part.count] must be an integer, not a string."),
        (3, "[part] must be an object, not a number."),
    ],
)
def test_error_path_starts_at_the_given_field(given: Any, expected: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        convert(given, Part, field="part")
    assert raised.value.message.startswith(expected)


def test_error_message_uses_the_given_name_for_the_whole() -> None:
    with pytest.raises(InvalidRequest, match="The configuration must be an object, not null"):
        convert(None, Part, whole="The configuration")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Something new - at `$.input`", Whole),
        ("Expected `array` of length 2 - at `$.pair`", Whole),
        ("Expected `str`, got `date` - at `$.input`", Whole),
        ("Object contains unknown field `x` - at `$.nowhere`", Whole),
        ("Object contains unknown field `x`", dict),
        ("Invalid enum value 'x' - at `$.input`", Whole),
    ],
)
def test_unrecognized_message_is_kept_unchanged(words: str, kind: Any) -> None:
    assert validation_message(msgspec.ValidationError(words), kind) == f"{words}."
    assert (
        validation_message(msgspec.ValidationError(words), kind, field="a") == f"[a] is not valid: {words}."
    )


@pytest.mark.parametrize("number", [b"1e999", b"1" + b"0" * 5000])
def test_number_that_is_too_large_is_reported_with_its_field(number: bytes) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.json.decode(b'{"input":"a","dimensions":%b}' % number, type=Whole)
    assert validation_message(raised.value, Whole) == "[dimensions] is too large a number."


def test_valid_data_is_converted_to_its_type() -> None:
    assert convert({"count": 2}, Part) == Part(count=2)


def test_field_name_that_imitates_msgspec_does_not_make_a_long_message() -> None:
    with pytest.raises(InvalidRequest) as raised:
        convert({"input": "a", " - at `$" * 5000: 1}, Whole)
    assert len(raised.value.message) <= 501


_CONVERT_AT_ONCE = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from hubgate.web.schemas.endpoint import EndpointForm
from hubgate.web.schemas.validation import convert

def name(_):
    all_have_begun.wait()
    return convert({"name": "e5", "url": "http://localhost"}, EndpointForm).name

all_have_begun = threading.Barrier(32)
sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(32) as threads:
    print(*set(threads.map(name, range(32))))
"""


def test_threads_of_a_new_process_convert_at_once() -> None:
    for _ in range(3):
        command = [sys.executable, "-c", _CONVERT_AT_ONCE]
        ended = subprocess.run(command, capture_output=True, check=False)
        assert (ended.returncode, ended.stdout.split()) == (0, [b"e5"])
