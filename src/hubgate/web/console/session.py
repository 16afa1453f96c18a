"""Console sessions: a signed cookie that ends with the gateway's process and with the key that it was created from.

The cookie holds the id of the gateway key (never the key), its times, and a nonce. Its HMAC-SHA256 key is created at
start and only kept in memory: a restart signs everybody out, and nothing on disk can forge a cookie.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

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
    nonce: str
    started_at: float
    seen_at: float


class Sessions:
    """Creates and reads session cookies.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._secret = secrets.token_bytes(32)
        self._revoked: dict[str, float] = {}
        """Nonces of sessions that signed out, with the time at which they would have expired."""

    def begin(self, key_id: str) -> Session:
        now = self.clock()
        return Session(key_id, secrets.token_urlsafe(16), now, now)

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie; `None` if the cookie is forged, expired or revoked."""
        text, _, signature = (cookie or "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", text).encode()):
            return None
        key_id, nonce, started_at, seen_at = text.split("~")
        session, now = Session(key_id, nonce, float(started_at), float(seen_at)), self.clock()
        expires_at = min(session.seen_at + IDLE_SECONDS, session.started_at + MAX_AGE_SECONDS)
        return None if nonce in self._revoked or now >= expires_at else session

    def renew(self, session: Session) -> Session | None:
        """The session with a new last-seen time; `None` if the cookie is recent enough, or revoked."""
        now = self.clock()
        if session.nonce in self._revoked or now - session.seen_at < _RENEW_SECONDS:
            return None
        return replace(session, seen_at=now)

    def cookie(self, session: Session) -> str:
        text = f"{session.key_id}~{session.nonce}~{session.started_at:.0f}~{session.seen_at:.0f}"
        return f"{text}.{self._sign('session', text)}"

    def end(self, session: Session) -> None:
        """Revoke the session, so that copies of its cookie are useless too."""
        now = self.clock()
        self._revoked = {nonce: until for nonce, until in self._revoked.items() if until > now}
        self._revoked[session.nonce] = session.started_at + MAX_AGE_SECONDS

    def csrf_token(self, session: Session) -> str:
        return self._sign("form", session.nonce)

    def is_csrf_token(self, session: Session, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.csrf_token(session).encode())

    def _sign(self, purpose: str, text: str) -> str:
        digest = hmac.digest(self._secret, f"{purpose}:{text}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


class RefusalRecordLimit:
    """Limits how many failed sign-ins are recorded, so that strangers cannot fill the audit log.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._recorded: deque[float] = deque(maxlen=_MAX_RECORDED)

    def admit(self) -> bool:
        """Whether to record one more."""
        now = self._clock()
        if len(self._recorded) == _MAX_RECORDED and now - self._recorded[0] < _RECORDED_SECONDS:
            return False
        self._recorded.append(now)
        return True
