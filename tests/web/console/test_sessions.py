"""Session cookies, CSRF tokens, and the limit of recorded failures, with a test clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from hubgate.domain.records import Key
from hubgate.web.console.session import IDLE_SECONDS, MAX_AGE_SECONDS, RefusalRecordLimit, Sessions

KEY = Key(id="1234abcd", name="admin", digest=b"a digest", created_at=0.0, admin=True)


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


def test_a_valid_cookie_is_read(sessions: Sessions) -> None:
    session = sessions.begin(KEY)
    assert sessions.read(sessions.cookie(session)) == session


@pytest.mark.parametrize("change", ["", "x", "é", "x" * 5000])
def test_a_changed_cookie_is_rejected(sessions: Sessions, change: str) -> None:
    cookie = sessions.cookie(sessions.begin(KEY))
    assert sessions.read(change + cookie[1:]) is None
    assert sessions.read(cookie + change) is None or not change
    assert sessions.read(change) is None


def test_a_cookie_of_another_process_is_rejected(sessions: Sessions, clock: _Clock) -> None:
    assert Sessions(clock).read(sessions.cookie(sessions.begin(KEY))) is None


def test_without_a_cookie_there_is_no_session(sessions: Sessions) -> None:
    assert sessions.read(None) is None


def test_a_session_ends_when_it_is_idle(sessions: Sessions, clock: _Clock) -> None:
    cookie = sessions.cookie(sessions.begin(KEY))
    clock.now += IDLE_SECONDS - 1
    assert sessions.read(cookie)
    clock.now += 1
    assert sessions.read(cookie) is None


def test_an_active_session_lasts_up_to_the_maximum_age(sessions: Sessions, clock: _Clock) -> None:
    session, began = sessions.begin(KEY), clock.now
    while clock.now < began + MAX_AGE_SECONDS - 3600:
        clock.now += 3600
        renewed = sessions.renew(session)
        assert renewed
        session = renewed
        assert sessions.read(sessions.cookie(session))
    clock.now = began + MAX_AGE_SECONDS
    assert sessions.read(sessions.cookie(session)) is None


def test_a_cookie_is_not_renewed_on_every_request(sessions: Sessions, clock: _Clock) -> None:
    session = sessions.begin(KEY)
    clock.now += 30
    assert sessions.renew(session) is None


async def test_copies_of_the_cookie_of_an_ended_session_are_rejected(
    sessions: Sessions, clock: _Clock
) -> None:
    session = sessions.begin(KEY)
    cookie = sessions.cookie(session)
    await sessions.end(session)
    assert sessions.read(cookie) is None
    clock.now += 3600
    assert sessions.renew(session) is None
    await sessions.end(sessions.begin(KEY))
    assert sessions.read(cookie) is None


def test_a_csrf_token_belongs_to_one_session(sessions: Sessions) -> None:
    one, other = sessions.begin(KEY), sessions.begin(KEY)
    assert sessions.is_csrf_token(one, sessions.csrf_token(one))
    assert not sessions.is_csrf_token(one, sessions.csrf_token(other))
    assert not sessions.is_csrf_token(one, "é")


async def test_recorded_sign_in_failures_are_limited(clock: _Clock) -> None:
    noted = RefusalRecordLimit(clock)
    assert sum([await noted.admit() for _ in range(1000)]) == 100
    clock.now += 3600
    assert await noted.admit()


async def test_a_session_ends_when_its_key_is_replaced_under_the_same_id(sessions: Sessions) -> None:
    session = sessions.begin(KEY)
    assert await sessions.is_current(session, KEY)
    assert not await sessions.is_current(session, replace(KEY, digest=b"another"))


def test_cookies_are_accepted_under_each_key_and_signed_under_the_first(clock: _Clock) -> None:
    before, during = Sessions(clock, [b"old", b"new"]), Sessions(clock, [b"new", b"old"])
    after = Sessions(clock, [b"new"])
    session = before.begin(KEY)
    assert during.read(before.cookie(session)) == session
    assert during.is_csrf_token(session, before.csrf_token(session))
    assert after.read(before.cookie(session)) is None
    assert after.read(during.cookie(session)) == session
