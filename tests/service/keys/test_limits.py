"""No 60 seconds exceed the request limit of a key, and a key over its token limit waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limited_keys import key

from hubgate.domain.errors import KeyLimit
from hubgate.domain.records import Key
from hubgate.service.keys.limits import MINUTE, KeyLimits


def waits(limits: KeyLimits, asker: Key, now: float) -> float:
    """For how long it is told to wait; 0 if it is admitted."""
    try:
        limits.admit(asker, now)
    except KeyLimit as full:
        return full.retry_after or 0.0
    return 0.0


def test_key_without_limits_uses_no_memory() -> None:
    limits = KeyLimits()
    for _ in range(5):
        limits.admit(key(), 0.0)
        limits.spend(key(), 10, 0.0)
    assert limits._minutes == {}


def test_request_over_the_limit_reports_retry_after() -> None:
    limits = KeyLimits()
    for at in (0.0, 10.0):
        limits.admit(key(2), at)
    with pytest.raises(KeyLimit, match="2 requests per minute") as full:
        limits.admit(key(2), 15.0)
    assert full.value.retry_after == 45.0
    assert full.value.retryable
    limits.admit(key(2), 60.0)
    with pytest.raises(KeyLimit):
        limits.admit(key(2), 69.9)
    limits.admit(key(2), 70.0)


def test_lowered_limit_counts_earlier_requests() -> None:
    limits = KeyLimits()
    for at in (0.0, 1.0, 2.0):
        limits.admit(key(3), at)
    with pytest.raises(KeyLimit) as full:
        limits.admit(key(1), 3.0)
    assert full.value.retry_after == 59.0


@given(st.lists(st.floats(0, 40), min_size=1, max_size=60), st.integers(1, 5))
def test_no_minute_exceeds_the_request_limit(gaps: list[float], limit: int) -> None:
    limits, now, admitted = KeyLimits(), 0.0, []
    for gap in gaps:
        now += gap
        wait = waits(limits, key(limit), now)
        assert 0 <= wait <= MINUTE + 1e-9  # what floats make of it
        if not wait:
            admitted.append(now)
    for at in admitted:
        assert sum(at - MINUTE < other <= at for other in admitted) <= limit


def test_key_over_its_token_limit_waits_until_enough_tokens_expire() -> None:
    limits = KeyLimits()
    spender = key(tokens=100)
    for at, tokens in ((0.0, 60), (10.0, 30), (20.0, 40)):
        limits.admit(spender, at)
        limits.spend(spender, tokens, at)
    with pytest.raises(KeyLimit, match="100 tokens per minute") as full:
        limits.admit(spender, 30.0)
    assert full.value.retry_after == pytest.approx(30.05)
    limits.admit(spender, 60.1)
    limits.spend(spender, 0, 60.1)
    limits.spend(spender, 30, 60.1)
    with pytest.raises(KeyLimit) as full:
        limits.admit(spender, 60.2)
    assert full.value.retry_after == pytest.approx(9.85)


def test_entries_per_minute_are_bounded_and_removed_with_a_revoked_key() -> None:
    limits = KeyLimits()
    spender = key(tokens=10**9)
    for number in range(10_000):
        limits.spend(spender, 1, number / 1000)
    minute = limits._minutes[spender.id]
    assert minute.total_tokens == 10_000
    assert len(minute.tokens) <= 201
    limits.forget(spender.id)
    assert limits._minutes == {}
