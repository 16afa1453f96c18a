"""Console sessions: a signed cookie that ends with the key that it was created from.

The cookie holds the id of the gateway key (never the key), its times, and a nonce. Its HMAC-SHA256 key is created at
start and only kept in memory: a restart signs everybody out, and nothing on disk can forge a cookie. Gateways of a shared
database have the same cookie keys and share sign-outs, so a session is valid at all of them, until it ends at all.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hubgate.domain.records import Key
from hubgate.service.shared_values import SharedValues

COOKIE = "hubgate_session"
IDLE_SECONDS = 2 * 3600.0
MAX_AGE_SECONDS = 12 * 3600.0
_RENEW_SECONDS = 60.0
_MAX_RECORDED = 100
_RECORDED_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in. Times are seconds since the epoch."""

    key_id: str
    key_mark: str
    """Of the gateway key itself: the one of the settings may change, and keep its id."""
    nonce: str
    started_at: float
    seen_at: float


class Sessions:
    """Creates and reads session cookies.

    Args:
        clock: seconds since the epoch.
        keys: the first signs cookies, all are accepted. A random one by default.
        shared: where sign-outs are seen by all gateways with the same keys.
    """

    def __init__(
        self, clock: Callable[[], float], keys: Sequence[bytes] = (), shared: SharedValues | None = None
    ) -> None:
        self.clock = clock
        self._keys = keys or (secrets.token_bytes(32),)
        self._shared = shared or SharedValues()
        self._revoked: dict[str, float] = {}
        """Nonces of sessions that signed out, with the time at which they would have expired."""

    def begin(self, key: Key) -> Session:
        now = self.clock()
        return Session(key.id, self._sign("key", key.digest.hex()), secrets.token_urlsafe(16), now, now)

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie; `None` if the cookie is forged, expired, or revoked at this gateway."""
        text, _, signature = (cookie or "").rpartition(".")
        if not self._is_signed("session", text, signature):
            return None
        key_id, key_mark, nonce, started_at, seen_at = text.split("~")
        session, now = Session(key_id, key_mark, nonce, float(started_at), float(seen_at)), self.clock()
        expires_at = min(session.seen_at + IDLE_SECONDS, session.started_at + MAX_AGE_SECONDS)
        return None if nonce in self._revoked or now >= expires_at else session

    async def is_current(self, session: Session, key: Key) -> bool:
        """Whether the session was created from this key, and has not signed out at another gateway."""
        if not self._is_signed("key", key.digest.hex(), session.key_mark):
            return False
        return await self._shared.get(_signed_out(session)) is None

    def renew(self, session: Session) -> Session | None:
        """The session with a new last-seen time; `None` if the cookie is recent enough, or revoked."""
        now = self.clock()
        if session.nonce in self._revoked or now - session.seen_at < _RENEW_SECONDS:
            return None
        return replace(session, seen_at=now)

    def cookie(self, session: Session) -> str:
        names = f"{session.key_id}~{session.key_mark}~{session.nonce}"
        text = f"{names}~{session.started_at:.0f}~{session.seen_at:.0f}"
        return f"{text}.{self._sign('session', text)}"

    async def end(self, session: Session) -> None:
        """Revoke the session, so that copies of its cookie are useless too."""
        now = self.clock()
        self._revoked = {nonce: until for nonce, until in self._revoked.items() if until > now}
        self._revoked[session.nonce] = session.started_at + MAX_AGE_SECONDS
        await self._shared.put(_signed_out(session), "", MAX_AGE_SECONDS)

    def csrf_token(self, session: Session) -> str:
        return self._sign("form", session.nonce)

    def is_csrf_token(self, session: Session, token: str) -> bool:
        return self._is_signed("form", session.nonce, token)

    def _sign(self, purpose: str, text: str) -> str:
        return _signature(self._keys[0], purpose, text)

    def _is_signed(self, purpose: str, text: str, signature: str) -> bool:
        given = signature.encode()
        return any(hmac.compare_digest(given, _signature(key, purpose, text).encode()) for key in self._keys)


class RefusalRecordLimit:
    """Limits how many failed sign-ins are recorded, so that strangers cannot fill the audit log.

    Args:
        clock: monotonic seconds.
        shared: where they are counted for all gateways.
    """

    def __init__(self, clock: Callable[[], float], shared: SharedValues | None = None) -> None:
        self._clock = clock
        self._shared = shared or SharedValues()
        self._recorded: deque[float] = deque(maxlen=_MAX_RECORDED)

    async def admit(self) -> bool:
        """Whether to record one more."""
        now = self._clock()
        if len(self._recorded) == _MAX_RECORDED and now - self._recorded[0] < _RECORDED_SECONDS:
            return False
        self._recorded.append(now)
        count, _ = await self._shared.count("recorded sign-in failures", _RECORDED_SECONDS)
        return count <= _MAX_RECORDED


def _signature(key: bytes, purpose: str, text: str) -> str:
    digest = hmac.digest(key, f"{purpose}:{text}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _signed_out(session: Session) -> str:
    """The name of the shared value that revokes a session."""
    return f"signed out {session.nonce}"
