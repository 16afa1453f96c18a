"""The order in which calls to a local model are served."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import TinyModelFolder

from hubgate.domain.calls import BULK_TURN_INTERVAL
from hubgate.domain.errors import Cause, InvalidRequest
from hubgate.runtime.batching import TextQueue, TextRef
from hubgate.runtime.calls import SLICE_CHARACTERS, slices
from hubgate.runtime.order import CallInfo, TurnOrder
from hubgate.runtime.protocol import Embedded, EmbedTexts, Tokenized, TokenizeTexts
from hubgate.runtime.supervisor import LocalModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hubgate.runtime.protocol import Request


def test_interactive_calls_go_first_without_starving_bulk_calls() -> None:
    order = TurnOrder()
    order.add(CallInfo(1, "job", bulk=True))
    order.add(CallInfo(2, "app"))
    first = [order.take_turn()[0] for _ in range(2 * BULK_TURN_INTERVAL)]
    assert first == [*[2] * (BULK_TURN_INTERVAL - 1), 1, *[2] * (BULK_TURN_INTERVAL - 1), 1]
    order.remove(2)
    assert order.take_turn() == [1]


def test_callers_take_turns_regardless_of_call_count() -> None:
    order = TurnOrder()
    for call in (1, 2, 3):
        order.add(CallInfo(call, "many"))
    order.add(CallInfo(9, "one"))
    assert [order.take_turn()[0] for _ in range(6)] == [1, 9, 2, 9, 3, 9]


def test_new_caller_precedes_caller_just_served() -> None:
    order = TurnOrder()
    order.add(CallInfo(1, "a"))
    assert order.take_turn() == [1]
    order.add(CallInfo(2, "b"))
    assert [order.take_turn()[0] for _ in range(2)] == [2, 1]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=12), st.data())
def test_every_call_gets_a_turn_and_removed_calls_get_none(
    calls: list[tuple[str, bool]], data: st.DataObject
) -> None:
    order = TurnOrder()
    waiting = {number: CallInfo(number, caller, bulk) for number, (caller, bulk) in enumerate(calls)}
    for asked in waiting.values():
        order.add(asked)
    while waiting:
        led = {order.take_turn()[0] for _ in range(3 * len(calls) * BULK_TURN_INTERVAL)}
        assert led == set(waiting)
        gone = data.draw(st.sampled_from(sorted(waiting)))
        del waiting[gone]
        order.remove(gone)
    assert not order
    assert order.take_turn() == []


def test_bulk_texts_never_join_interactive_batches() -> None:
    waiting = TextQueue()
    waiting.add(CallInfo(1, bulk=True), [8, 8])
    waiting.add(CallInfo(2), [8])
    assert waiting.take() == [TextRef(2, 0)]
    assert {place.call for place in waiting.take()} == {1}


@given(st.lists(st.integers(0, 3 * SLICE_CHARACTERS), max_size=30), st.integers(0, SLICE_CHARACTERS))
def test_slices_are_bounded_and_contain_each_text_once(lengths: list[int], beside: int) -> None:
    texts = ["a" * length for length in lengths]
    cut = list(slices(texts, beside=beside))
    assert [text for _, some in cut for text in some] == texts
    for first, some in cut:
        assert texts[first : first + len(some)] == some
        assert len(some) == 1 or sum(len(text) + beside for text in some) <= SLICE_CHARACTERS


HOLDING_WORKER = """
import sys

from hubgate.runtime.batching import TextQueue
from hubgate.runtime.worker import main


class HoldingQueue(TextQueue):
    batches, complete = 0, False

    def __bool__(self):
        return super().__bool__() and (self.complete or not self.batches)

    def add(self, info, lengths):
        super().add(info, lengths)
        self.complete |= info.call == int(sys.argv[1])

    def take(self):
        self.batches += 1
        return super().take()


sys.exit(main(sys.argv[2:], HoldingQueue()))
"""
"""A worker that runs one batch, and the next when the call of a given number waits, too: however late it is read."""


def embed(texts: Sequence[str], caller: str, *, bulk: bool = False) -> Callable[[int], Request]:
    return lambda call: EmbedTexts(call, list(texts), None, True, False, None, caller, bulk)


async def ended(folder: Path, requests: Sequence[Callable[[int], Request]]) -> list[int]:
    """Send requests; return their indexes in the order of the replies."""
    order: list[int] = []
    model = LocalModel(
        folder,
        command=lambda folder: [sys.executable, "-P", "-c", HOLDING_WORKER, f"{len(requests)}", f"{folder}"],
    )

    async def send(index: int, request: Callable[[int], Request]) -> None:
        await model.request(request)
        order.append(index)

    await model.ready()
    await asyncio.gather(*(send(index, request) for index, request in enumerate(requests)))
    await model.close()
    return order


@pytest.mark.parametrize("words", [3, 20_000])
async def test_interactive_call_overtakes_all_waiting_bulk_calls(tmp_path: Path, words: int) -> None:
    """Both those already running and those still being tokenized."""
    folder = TinyModelFolder(tmp_path).path
    bulk = [embed(["w1 " * 40] * 400, "job", bulk=True)] * 8
    order = await ended(folder, [*bulk, embed(["w2 " * words], "app")])
    assert order[0] == 8


async def test_large_calls_of_one_key_do_not_delay_another_key(tmp_path: Path) -> None:
    folder = TinyModelFolder(tmp_path).path
    order = await ended(folder, [*[embed(["w1 w2 " * 800] * 300, "one")] * 6, embed(["w3"], "other")])
    assert order[0] == 6


async def test_failed_or_cancelled_large_call_affects_no_other_call(tmp_path: Path) -> None:
    model = LocalModel(TinyModelFolder(tmp_path).path)
    await model.ready()
    left = asyncio.create_task(model.request(embed(["w1 " * 4000] * 500, "one")))
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(InvalidRequest, match="Text 40 is too long to truncate") as failed:
        await model.request(embed([*["w1 " * 300] * 40, "w" * 300_000], "one"))
    assert failed.value.cause is Cause.INPUT_TOO_LONG
    reply = await model.request(embed(["w1 " * 100_000, "w1"], "one"))
    assert isinstance(reply, Embedded)
    assert (reply.tokens, reply.truncated) == ([48, 3], [True, False])
    tokens = await model.request(lambda call: TokenizeTexts(call, ["w1 " * 4000] * 3, False))
    assert isinstance(tokens, Tokenized)
    assert [len(item) for item in tokens.items] == [4000] * 3
    await model.close()
