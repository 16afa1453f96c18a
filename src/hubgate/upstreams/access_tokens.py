"""The access tokens of one endpoint: taken in turn for requests, and redacted from what servers reply."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator

from hubgate.domain.errors import Cause, UpstreamRefused
from hubgate.domain.ports import Clock
from hubgate.domain.secret import Secret

RATE_LIMITED_SECONDS = 30.0
"""How long a token is skipped after a 429, if the server sends no `Retry-After`."""
REFUSED_SECONDS = 600.0
"""How long it is skipped if it is not accepted, or its account has no credit: someone must act first."""
_REFUSED = frozenset({401, 402})
_SKIPPED = _REFUSED | {429}
_MIN_TOKEN_LENGTH = 6
"""A shorter token is a placeholder such as `x`, which also occurs in ordinary words."""
_MIN_BASE64_LENGTH = 8
"""Shorter pieces of base64 also occur in ordinary words."""


class AccessTokens:
    """Picks the token for each request. A token that was refused is skipped for a while.

    Args:
        secret: the tokens, one per line; `None` if the server wants none.
        clock: seconds that never go back.
    """

    def __init__(self, secret: Secret | None, clock: Clock = time.monotonic) -> None:
        self._tokens = list(dict.fromkeys(secret.each())) if secret else []
        self._clock = clock
        self._usable_at = dict.fromkeys(self._tokens, 0.0)

    def take(self) -> Secret | None:
        """The next usable token in turn; if none is usable, the one that will be first."""
        if len(self._tokens) < 2:
            return self._tokens[0] if self._tokens else None
        now = self._clock()
        token = min(self._tokens, key=lambda token: max(self._usable_at[token] - now, 0.0))
        self._tokens.remove(token)
        self._tokens.append(token)
        return token

    def refused(self, token: Secret | None, error: UpstreamRefused) -> None:
        """Skip a token for a while if the error is about it, and allow a retry if there is another one."""
        if token is None or not (error.status in _SKIPPED or error.cause is Cause.OUT_OF_CREDIT):
            return
        now = self._clock()
        is_refused = error.status in _REFUSED or error.cause is Cause.OUT_OF_CREDIT
        seconds = REFUSED_SECONDS if is_refused else error.retry_after or RATE_LIMITED_SECONDS
        self._usable_at[token] = now + seconds
        if any(at <= now for at in self._usable_at.values()):
            error.retryable = True
            error.retry_after = 0.0


def redact(token: Secret | None, text: str) -> str:
    """The text with `…` for the tokens in it: as they are, percent-encoded, escaped as in JSON, or in base64."""
    if token is None:
        return text
    secrets = (one.reveal() for one in token.each())
    patterns = [pattern for one in secrets if len(one) >= _MIN_TOKEN_LENGTH for pattern in _patterns(one)]
    return re.sub("|".join(patterns), "…", text) if patterns else text


def _patterns(secret: str) -> Iterator[str]:
    """Regular expressions, which Python caches."""
    yield "".join(map(_letter, secret))
    raw = secret.encode()
    for offset in range(3):  # a prefix such as a user name or "Bearer " shifts the base64
        code = base64.b64encode(bytes(offset) + raw).decode()
        # Only the letters that depend on nothing but the secret.
        code = code[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6]
        if len(code) >= _MIN_BASE64_LENGTH:
            yield "".join(map(_base64_letter, code))


def _letter(letter: str) -> str:
    """One letter in any encoding. The bounds keep the match fast on a text of nothing but escape characters."""
    percent = "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in letter.encode())
    coded = rf"{percent}|\\{{1,4}}u{ord(letter):04x}|\\{{1,4}}x{ord(letter):02x}"
    return rf"(?:\\{{0,4}}{re.escape(letter)}|(?i:{coded}))"


def _base64_letter(letter: str) -> str:
    other = {"+": "-", "/": "_"}.get(letter)
    return f"(?:{_letter(letter)}|{_letter(other)})" if other else _letter(letter)
