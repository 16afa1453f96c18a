"""Who is signed in: a signed cookie that outlives neither the gate's process nor the key it was got with.

The cookie holds the id of the gateway key (never the key), when it was got and last seen, and a random number. It is
signed by HMAC-SHA256 with a key that is made anew at each start and kept in memory alone: so a restart signs everybody
out, and nothing that lies on a disk can make a cookie.
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
LONGEST_SECONDS = 12 * 3600.0
_RENEW_SECONDS = 60.0
_MOST_NOTED = 100
_NOTED_SECONDS = 3600.0
"""So many refused sign-ins are noted in so much time, of all addresses together."""


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in. Times are seconds since the epoch."""

    key_id: str
    nonce: str
    began: float
    seen: float


class Sessions:
    """Makes and reads the cookies of one process.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._secret = secrets.token_bytes(32)
        self._ended: dict[str, float] = {}
        """Signed out before their time, by their random number; when they would have ended."""

    def begin(self, key_id: str) -> Session:
        """A new session of who showed a key."""
        now = self.clock()
        return Session(key_id, secrets.token_urlsafe(16), now, now)

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie, if it was made here and is neither ended nor too old."""
        text, _, signature = (cookie or "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", text).encode()):
            return None
        key_id, nonce, began, seen = text.split("~")
        session, now = Session(key_id, nonce, float(began), float(seen)), self.clock()
        if nonce in self._ended or now >= min(session.seen + IDLE_SECONDS, session.began + LONGEST_SECONDS):
            return None
        return session

    def renewed(self, session: Session) -> Session | None:
        """The session as seen now; `None` if its cookie is young enough to stay, or the session has ended."""
        now = self.clock()
        if session.nonce in self._ended or now - session.seen < _RENEW_SECONDS:
            return None
        return replace(session, seen=now)

    def cookie(self, session: Session) -> str:
        """What the browser keeps."""
        text = f"{session.key_id}~{session.nonce}~{session.began:.0f}~{session.seen:.0f}"
        return f"{text}.{self._sign('session', text)}"

    def end(self, session: Session) -> None:
        """Sign out: copies of the cookie are worth nothing from now on."""
        now = self.clock()
        self._ended = {nonce: until for nonce, until in self._ended.items() if until > now}
        self._ended[session.nonce] = session.began + LONGEST_SECONDS

    def form_token(self, session: Session) -> str:
        """What each form of this session has to bring along, which no other site can know."""
        return self._sign("form", session.nonce)

    def is_form_token(self, session: Session, given: str) -> bool:
        """Whether a form is one of this session's own."""
        return hmac.compare_digest(given.encode(), self.form_token(session).encode())

    def _sign(self, purpose: str, text: str) -> str:
        digest = hmac.digest(self._secret, f"{purpose}:{text}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


class NotedRefusals:
    """Bounds how many refused sign-ins are noted in the audit log, which strangers must not fill.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._noted: deque[float] = deque(maxlen=_MOST_NOTED)

    def admit(self) -> bool:
        """Whether one more is to be noted."""
        now = self._clock()
        if len(self._noted) == _MOST_NOTED and now - self._noted[0] < _NOTED_SECONDS:
            return False
        self._noted.append(now)
        return True
