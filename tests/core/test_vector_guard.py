"""Validation of the vectors that a server returns."""

from __future__ import annotations

import struct

import pytest
from scripted_upstream import embed
from virtual_time import run

from hubgate.core.vector_guard import VectorGuard
from hubgate.domain.calls import Call, Embed, Encoding, Result, Tokenize, Tokens, Vectors
from hubgate.domain.errors import Cause, HubgateError, UpstreamUnreadable


def returned(result: Result, call: Call, dimensions: int | None = 2) -> Result:
    async def server(call: Call) -> Result:
        return result

    return run(VectorGuard(server, dimensions=dimensions)(call))


def json_vectors(*items: bytes) -> Vectors:
    return Vectors(items=list(items), encoding=Encoding.JSON)


@pytest.mark.parametrize("item", [b"[1,2]", b" [ -0.5 , 1e-07 ]", b"[1e2,3E1]", b"[0.1e-5,2.0]"])
def test_returns_valid_vectors_unchanged(item: bytes) -> None:
    vectors = json_vectors(item)
    assert returned(vectors, embed("a")) is vectors


@pytest.mark.parametrize(
    "item",
    [
        b"[1,null]",
        b"[1,NaN]",
        b"[1e999,2]",
        b"[1,-1E400]",
        b"[true,false]",
        b'["1",2]',
        b"[[1],2]",
        b"[{},2]",
    ],
)
def test_rejects_json_vectors_with_invalid_numbers(item: bytes) -> None:
    with pytest.raises(UpstreamUnreadable) as refusal:
        returned(json_vectors(item), embed("a"))
    assert refusal.value.cause is Cause.NOT_A_NUMBER


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_rejects_non_finite_float32(number: float) -> None:
    good, bad = struct.pack("<2f", 1.0, 2.0), struct.pack("<2f", 1.0, number)
    returned(Vectors(items=[good], encoding=Encoding.F32), embed("a"))
    with pytest.raises(UpstreamUnreadable):
        returned(Vectors(items=[good, bad], encoding=Encoding.F32), embed("a", "b"))


@pytest.mark.parametrize(
    ("good", "bad", "encoding"),
    [
        (b"[0.0,1e-9]", b"[0.0, -0]", Encoding.JSON),
        (b"[0e0,1e0]", b"[0e0,0e0]", Encoding.JSON),
        (b"[1E1 , 0.00]", b"[0E+1, -0.0e-07]", Encoding.JSON),
        (b"[0e-9, 0.10]", b" [-0.0,0\r] ".strip(), Encoding.JSON),
        (struct.pack("<2f", 0.0, 1e-9), struct.pack("<2f", 0.0, 0.0), Encoding.F32),
        (struct.pack("<2f", -0.0, -1e-45), struct.pack("<2f", -0.0, 0.0), Encoding.F32),
    ],
)
def test_rejects_a_vector_of_zeros_by_its_text(good: bytes, bad: bytes, encoding: Encoding) -> None:
    returned(Vectors(items=[good], encoding=encoding), embed("a"))
    with pytest.raises(UpstreamUnreadable, match="zeros for text 1"):
        returned(Vectors(items=[good, bad], encoding=encoding, dimensions=2), embed("a", "b"))


def test_rejects_wrong_number_of_vectors() -> None:
    with pytest.raises(UpstreamUnreadable, match="2 vectors for 1 texts") as refusal:
        returned(json_vectors(b"[1,2]", b"[3,4]"), embed("a"))
    assert refusal.value.cause is Cause.WRONG_COUNT


def test_other_dimensions_are_an_error_of_this_call_that_names_both_numbers() -> None:
    with pytest.raises(
        UpstreamUnreadable, match="3 dimensions; the endpoint was registered with 2"
    ) as refusal:
        returned(json_vectors(b"[1,2]", b"[1,2,3]"), embed("a", "b"))
    assert refusal.value.cause is Cause.DIMENSIONS_CHANGED


def test_accepts_any_dimensions_when_none_are_registered() -> None:
    returned(json_vectors(b"[1,2,3]"), embed("a"), None)


def test_ignored_dimensions_option_is_not_reported_as_a_changed_model() -> None:
    call = Embed(texts=["a"], dimensions=1)
    returned(json_vectors(b"[1]"), call)
    with pytest.raises(HubgateError, match="2 dimensions where 1 were requested"):
        returned(json_vectors(b"[1,2]"), call)


@pytest.mark.parametrize(
    ("asked", "fault"), [(None, "3 dimensions; the endpoint was registered"), (4, "3 dimensions where 4")]
)
def test_checks_dimensions_that_the_result_already_states(asked: int | None, fault: str) -> None:
    counted = Vectors(items=[b"[1,2,3]"], encoding=Encoding.JSON, dimensions=3)
    assert returned(counted, embed("a"), 3) is counted
    with pytest.raises(HubgateError, match=fault):
        returned(counted, Embed(texts=["a"], dimensions=asked))
    with pytest.raises(UpstreamUnreadable, match="1 vectors for 2 texts"):
        returned(counted, embed("a", "b"), 3)


def test_returns_other_results_unchanged() -> None:
    tokens = Tokens([])
    assert returned(tokens, Tokenize(texts=["a"])) is tokens
