from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubgate.runtime.batching import (
    MAX_PADDED_TOKENS,
    MIN_LENGTH_RATIO,
    TextQueue,
    TextRef,
    padded_length,
)
from hubgate.runtime.order import CallInfo

CALLS = st.lists(st.lists(st.integers(1, 300), max_size=40), max_size=8)


@given(CALLS)
def test_every_text_runs_exactly_once(calls: list[list[int]]) -> None:
    taken = [place for batch in _drained(calls) for place in batch]
    assert sorted((p.call, p.index) for p in taken) == [
        (call, index) for call, lengths in enumerate(calls) for index in range(len(lengths))
    ]


@given(CALLS, st.integers(64, 1024))
def test_batch_stays_within_budget_unless_single_text(calls: list[list[int]], budget: int) -> None:
    for batch in _drained(calls, budget):
        longest = max(calls[p.call][p.index] for p in batch)
        assert len(batch) == 1 or len(batch) * padded_length(longest) <= budget


@given(CALLS)
def test_batch_texts_have_similar_padded_lengths_longest_first(
    calls: list[list[int]],
) -> None:
    for batch in _drained(calls):
        lengths = [calls[p.call][p.index] for p in batch]
        assert lengths == sorted(lengths, reverse=True)
        # The length is that of the call whose turn it is. Longer texts of others join if the padding stays the same.
        own = next(length for length in range(1, 301) if padded_length(length) == padded_length(lengths[0]))
        assert lengths[-1] >= MIN_LENGTH_RATIO * own


@given(st.integers(0, 600))
def test_short_texts_are_padded_by_a_token_at_most_and_others_by_seven(tokens: int) -> None:
    padded = padded_length(tokens)
    assert padded >= 1
    assert 0 <= padded - max(tokens, 1) <= (1 if tokens <= 32 else 7)
    assert padded_length(padded) == padded


@given(st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=40), min_size=1, max_size=8))
def test_every_waiting_call_is_served_once_per_round(calls: list[list[int]]) -> None:
    last_served = dict.fromkeys(range(len(calls)), 0)
    left = {call: len(lengths) for call, lengths in enumerate(calls)}
    for number, batch in enumerate(_drained(calls), 1):
        for place in batch:
            last_served[place.call] = number
            left[place.call] -= 1
        assert all(number - last_served[call] <= len(calls) for call, texts in left.items() if texts)


def test_single_text_waits_for_only_one_batch_of_a_large_call() -> None:
    waiting = TextQueue()
    waiting.add(CallInfo(1), [200] * 1000)
    first = waiting.take()
    waiting.add(CallInfo(2), [8])
    second = waiting.take()
    assert {p.call for p in first} == {1}
    assert second == [TextRef(2, 0)]


def test_late_texts_of_similar_length_join_the_next_batch() -> None:
    waiting = TextQueue()
    waiting.add(CallInfo(1), [10])
    waiting.add(CallInfo(2), [9])
    waiting.add(CallInfo(3), [100])
    assert waiting.take() == [TextRef(1, 0), TextRef(2, 0)]
    assert waiting.take() == [TextRef(3, 0)]
    assert waiting.take() == []


def test_texts_of_similar_or_equal_padded_length_share_a_batch() -> None:
    waiting = TextQueue()
    for call, length in enumerate((50, 56, 40, 57, 39)):
        waiting.add(CallInfo(call), [length])
    assert waiting.take() == [TextRef(1, 0), TextRef(0, 0), TextRef(2, 0)]
    assert waiting.take() == [TextRef(3, 0)]
    assert waiting.take() == [TextRef(4, 0)]


def test_removed_texts_do_not_run() -> None:
    waiting = TextQueue()
    waiting.add(CallInfo(1), [5, 6])
    waiting.remove(1)
    waiting.remove(2)
    waiting.add(CallInfo(3), [])
    assert not waiting


def _drained(calls: list[list[int]], budget: int = MAX_PADDED_TOKENS) -> list[list[TextRef]]:
    waiting = TextQueue(padded_tokens=budget)
    for call, lengths in enumerate(calls):
        waiting.add(CallInfo(call), lengths)
    batches = []
    while waiting:
        batches.append(waiting.take())
    return batches
