"""A server's error reply: its own words, when to ask again, and the error that it becomes."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from hubgate.domain.calls import Quota
from hubgate.domain.errors import UpstreamRefused
from hubgate.domain.secret import Secret
from hubgate.upstreams.engines.replies.causes import SIGNS, rule_for, unknown_parameters
from hubgate.upstreams.http.messages import HttpReply
from hubgate.upstreams.masking import without

MAX_SAID = 300
_MAX_READ = 4096
_LONGEST_TOKEN = 4096
"""Letters, as a server may spell it."""
_DEEPEST = 4
"""Lists and objects in one another, in which words are looked for."""
_ENDS = (".", "!", "?", "…", "。", "！", "？")
MAX_RETRY_AFTER = 600.0
"""Seconds. A server that asks for more is not believed: it is asked again after this."""


def refusal(reply: HttpReply, token: Secret | None) -> UpstreamRefused:
    """The error for a reply of status 400 or more."""
    plain = words_of(reply, None)  # a short token may stand in ordinary words, which masking would break
    rule = rule_for(reply.status, plain, has_token=token is not None)
    unknown = unknown_parameters(plain)
    words = "" if unknown else words_of(reply, token)
    said = words if len(words) <= MAX_SAID else words[: MAX_SAID - 1].rstrip() + "…"
    return UpstreamRefused(
        _about_parameters(unknown, token) if unknown else told(rule.message, reply.status, said),
        status=reply.status,
        server_message=said,
        markers=frozenset(sign for sign in SIGNS if sign in plain),
        remedy=rule.remedy,
        cause=rule.cause,
        retryable=rule.retryable,
        retry_after=retry_after(reply) if rule.retryable else None,
    )


def _about_parameters(names: Sequence[str], token: Secret | None) -> str:
    """In our own words: huggingface_hub reads the server's, and then takes every endpoint for one that cannot stream."""
    named = without(token, ", ".join(f"[{name}]" for name in names))
    return f"The server does not know {named if len(named) <= MAX_SAID else named[: MAX_SAID - 1] + '…'}."


def told(message: str, status: int, said: str) -> str:
    """What went wrong, with the server's own words, ended so that a further sentence may follow."""
    if not said:
        return f"{message} (Status {status}.)"
    return f"{message} It said ({status}): {said}{'' if said.endswith(_ENDS) else '.'}"


def words_of(reply: HttpReply, token: Secret | None) -> str:
    """The server's own words on one line, without markup, and without the token should they repeat it."""
    longest = _MAX_READ + _LONGEST_TOKEN  # so that none is cut in two before it is found
    text = without(token, _find_words(reply)[:longest])[:_MAX_READ]
    text = re.sub(r"(?is)<(script|style|head)\b.*?</\1>", " ", text)
    text = without(token, html.unescape(re.sub(r"<[^<>]*>", " ", text)))
    text = re.sub(r"\bhf_\w{8,}|(?i:\bbearer) \S+", "…", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _find_words(reply: HttpReply) -> str:
    raw = reply.body.decode("utf-8", "replace")
    try:
        body = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return reply.headers.get("x-error-message", "") or raw
    if isinstance(body, str):
        return body
    if isinstance(body, dict):
        for key in ("error", "message", "detail"):
            words = _words_in(body.get(key))
            if words:
                return words
    return reply.headers.get("x-error-message", "") or raw


def _words_in(value: Any, depth: int = _DEEPEST) -> str:
    """The words in a text, an object with a `message`, or a list of texts or of FastAPI's `{loc, msg}`."""
    if isinstance(value, str):
        return value
    if not depth:
        return ""
    if isinstance(value, dict):
        words = _words_in(value.get("message") or value.get("msg") or value.get("reason"), depth - 1)
        loc = value.get("loc")
        place = (
            ".".join(str(step) for step in loc if isinstance(step, str | int))
            if isinstance(loc, list)
            else ""
        )
        return f"{place}: {words}" if place and words else words
    if isinstance(value, list):
        return "; ".join(filter(None, (_words_in(part, depth - 1) for part in value)))
    return ""


def retry_after(reply: HttpReply) -> float | None:
    """The seconds after which the server wants to be asked again, `None` if it does not say.

    From `Retry-After` (seconds, or a date read against the reply's own `Date`), `RateLimit: …;r=0;t=55`
    (draft-ietf-httpapi-ratelimit-headers), or the hosted service's `estimated_time`.
    """
    told = (
        _seconds(reply.headers.get("retry-after", "")),
        _until(reply.headers, reply.headers.get("retry-after", "")),
        _window(reply.headers),
        _estimated(reply.body),
    )
    seconds = next((value for value in told if value is not None), None)
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _seconds(text: object) -> float | None:
    try:
        value = float(text)  # type: ignore[arg-type] # what is no number raises, and is caught
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _until(headers: Mapping[str, str], date: str) -> float | None:
    try:
        return (parsedate_to_datetime(date) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None


def quota(headers: Mapping[str, str]) -> Quota | None:
    """What is left of the server's tightest limit, from `RateLimit: "name";r=12;t=55`; `None` if it does not say."""
    windows = []
    for part in headers.get("ratelimit", "").split(","):
        left, reset = re.search(r";\s*r=(\d{1,9})\b", part), re.search(r";\s*t=(\d{1,9})\b", part)
        if left and reset:
            windows.append(Quota(int(left[1]), min(float(reset[1]), MAX_RETRY_AFTER)))
    return min(windows, key=lambda window: window.remaining / max(window.seconds, 1.0), default=None)


def _window(headers: Mapping[str, str]) -> float | None:
    """The reset time of a window that has nothing left."""
    left = quota(headers)
    return left.seconds if left and not left.remaining else None


def _estimated(body: bytes) -> float | None:
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return _seconds(reply.get("estimated_time")) if isinstance(reply, dict) else None
