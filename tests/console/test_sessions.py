"""Signed cookies, form tokens, and the bound on attempts, with a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hubgate.web.console.session import IDLE_SECONDS, LONGEST_SECONDS, Attempts, Sessions


@dataclass
class _Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def sessions(clock: _Clock) -> Sessions:
    return Sessions(clock)


def test_a_cookie_that_was_made_here_is_read(sessions: Sessions) -> None:
    session = sessions.begin("1234abcd")
    assert sessions.read(sessions.cookie(session)) == session


@pytest.mark.parametrize("change", ["", "x", "é", "x" * 5000])
def test_a_cookie_that_was_changed_is_worth_nothing(sessions: Sessions, change: str) -> None:
    cookie = sessions.cookie(sessions.begin("1234abcd"))
    assert sessions.read(change + cookie[1:]) is None
    assert sessions.read(cookie + change) is None or not change
    assert sessions.read(change) is None


def test_a_cookie_of_another_process_is_worth_nothing(sessions: Sessions, clock: _Clock) -> None:
    assert Sessions(clock).read(sessions.cookie(sessions.begin("1234abcd"))) is None


def test_no_cookie_is_no_session(sessions: Sessions) -> None:
    assert sessions.read(None) is None


def test_a_session_ends_when_it_is_idle(sessions: Sessions, clock: _Clock) -> None:
    cookie = sessions.cookie(sessions.begin("1234abcd"))
    clock.now += IDLE_SECONDS - 1
    assert sessions.read(cookie)
    clock.now += 1
    assert sessions.read(cookie) is None


def test_a_session_that_is_used_lives_on_but_not_for_ever(sessions: Sessions, clock: _Clock) -> None:
    session, began = sessions.begin("1234abcd"), clock.now
    while clock.now < began + LONGEST_SECONDS - 3600:
        clock.now += 3600
        renewed = sessions.renewed(session)
        assert renewed
        session = renewed
        assert sessions.read(sessions.cookie(session))
    clock.now = began + LONGEST_SECONDS
    assert sessions.read(sessions.cookie(session)) is None


def test_a_cookie_is_not_renewed_at_each_request(sessions: Sessions, clock: _Clock) -> None:
    session = sessions.begin("1234abcd")
    clock.now += 30
    assert sessions.renewed(session) is None


def test_a_session_that_was_ended_stays_ended_whoever_kept_its_cookie(
    sessions: Sessions, clock: _Clock
) -> None:
    session = sessions.begin("1234abcd")
    cookie = sessions.cookie(session)
    sessions.end(session)
    assert sessions.read(cookie) is None
    clock.now += 3600
    assert sessions.renewed(session) is None
    sessions.end(sessions.begin("other"))
    assert sessions.read(cookie) is None


def test_a_form_token_is_of_one_session_alone(sessions: Sessions) -> None:
    one, other = sessions.begin("1234abcd"), sessions.begin("1234abcd")
    assert sessions.is_form_token(one, sessions.form_token(one))
    assert not sessions.is_form_token(one, sessions.form_token(other))
    assert not sessions.is_form_token(one, "é")


class TestAttempts:
    def test_after_five_wrong_keys_an_address_waits_until_the_first_is_a_minute_old(
        self, clock: _Clock
    ) -> None:
        attempts = Attempts(clock)
        for _ in range(5):
            assert attempts.wait("10.0.0.1") == 0
            attempts.failed("10.0.0.1")
            clock.now += 1
        assert attempts.wait("10.0.0.1") == 55
        assert attempts.wait("10.0.0.2") == 0
        clock.now += 55
        assert attempts.wait("10.0.0.1") == 0

    def test_the_right_key_forgets_the_wrong_ones(self, clock: _Clock) -> None:
        attempts = Attempts(clock)
        for _ in range(5):
            attempts.failed("10.0.0.1")
        attempts.succeeded("10.0.0.1")
        assert attempts.wait("10.0.0.1") == 0

    def test_many_addresses_take_bounded_memory(self, clock: _Clock) -> None:
        attempts = Attempts(clock)
        for number in range(10_001):
            for _ in range(5):
                attempts.failed(str(number))
        assert attempts.wait("0") == 0
        assert attempts.wait("10000") > 0
