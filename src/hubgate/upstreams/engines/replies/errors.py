"""Error replies of servers: the server's message, when to retry, and the error to raise."""

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
from hubgate.upstreams.access_tokens import redact
from hubgate.upstreams.engines.replies.causes import MARKERS, rule_for, unknown_parameters
from hubgate.upstreams.http.messages import HttpReply
from hubgate.upstreams.json_values import as_list

MAX_MESSAGE_LENGTH = 300
_MAX_READ = 4096
"""Characters of a message that are searched for markers and rules."""
_MAX_TOKEN_LENGTH = 4096
"""Characters of an access token, also if it is percent- or HTML-encoded."""
_MAX_DEPTH = 4
"""Levels of nested lists and objects that are searched for a message."""
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
MAX_RETRY_AFTER = 600.0
"""Seconds of a window of a rate limit that hubgate spreads its requests over."""
_MAX_REPORTED = 31 * 86_400.0
"""Seconds until a retry that are believed: a month."""
_LONG = 300.0
"""Seconds until a retry that the message names, because hubgate waits no longer for it."""


def refusal(reply: HttpReply, token: Secret | None, *, generates: bool = False) -> UpstreamRefused:
    """The error for a reply of status 400 or more, of a server whose model `generates` text or not."""
    plain = server_message(reply, None)  # unredacted, as redaction may break words that contain a short token
    rule = rule_for(reply.status, f"{plain} {_error_code(reply)}", has_token=token is not None)
    seconds = retry_after(reply) if rule.retryable else None
    unknown = unknown_parameters(plain)
    message = "" if unknown else server_message(reply, token)
    if len(message) > MAX_MESSAGE_LENGTH:
        message = message[: MAX_MESSAGE_LENGTH - 1].rstrip() + "…"
    return UpstreamRefused(
        _parameter_message(unknown, token)
        if unknown
        else with_server_message(rule.message, reply.status, message) + _in_words(seconds),
        status=reply.status,
        server_message=message,
        markers=frozenset(marker for marker in MARKERS if marker in plain),
        remedy=(rule.remedy_for_prompts if generates else "") or rule.remedy,
        cause=rule.cause,
        retryable=rule.retryable,
        retry_after=seconds,
    )


def _in_words(seconds: float | None) -> str:
    if seconds is None or seconds <= _LONG:
        return ""
    minutes = math.ceil(seconds / 60)
    time = f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"
    return f" It accepts requests again in {time}."


def _error_code(reply: HttpReply) -> str:
    """The code and the type of an error in OpenAI's format, which say more than some messages."""
    try:
        body = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return ""
    error = body.get("error") if isinstance(body, dict) else None
    found = (error.get("code"), error.get("type")) if isinstance(error, dict) else ()
    return " ".join(each for each in found if isinstance(each, str))


def _parameter_message(names: Sequence[str], token: Secret | None) -> str:
    """Does not quote the server: its words make huggingface_hub believe that the endpoint cannot stream."""
    listed = redact(token, ", ".join(f"[{name}]" for name in names))
    if len(listed) > MAX_MESSAGE_LENGTH:
        listed = listed[: MAX_MESSAGE_LENGTH - 1] + "…"
    return f"The server does not know {listed}."


def with_server_message(message: str, status: int, reported: str) -> str:
    """Append the server's own message, and a full stop if it has none, so that another sentence can follow."""
    if not reported:
        return f"{message} (Status {status}.)"
    return (
        f"{message} Server response ({status}): {reported}{'' if reported.endswith(_SENTENCE_ENDS) else '.'}"
    )


def server_message(reply: HttpReply, token: Secret | None) -> str:
    """The server's message on one line, without markup, and with the token redacted."""
    longest = _MAX_READ + _MAX_TOKEN_LENGTH  # so that no token is cut in two before it is redacted
    text = redact(token, _find_message(reply)[:longest])[:_MAX_READ]
    text = re.sub(r"(?is)<(script|style|head)\b.*?</\1>", " ", text)
    text = redact(token, html.unescape(re.sub(r"<[^<>]*>", " ", text)))
    text = re.sub(r"\bhf_\w{8,}|(?i:\bbearer) \S+", "…", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _find_message(reply: HttpReply) -> str:
    raw = reply.body.decode("utf-8", "replace")
    try:
        body = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return reply.headers.get("x-error-message", "") or raw
    if isinstance(body, str):
        return body
    if isinstance(body, dict):
        for key in ("error", "message", "detail"):
            if message := _message_in(body.get(key)):
                return message
    return reply.headers.get("x-error-message", "") or raw


def _message_in(value: Any, depth: int = _MAX_DEPTH) -> str:
    """The message in a string, in an object with a `message`, or in a list of strings or of FastAPI's `{loc, msg}`."""
    if isinstance(value, str):
        return value
    if not depth:
        return ""
    if isinstance(value, dict):
        message = _message_in(value.get("message") or value.get("msg") or value.get("reason"), depth - 1)
        path = ".".join(str(step) for step in as_list(value.get("loc")) if isinstance(step, str | int))
        return f"{path}: {message}" if path and message else message
    if isinstance(value, list):
        return "; ".join(filter(None, (_message_in(part, depth - 1) for part in value)))
    return ""


def retry_after(reply: HttpReply) -> float | None:
    """The seconds until a retry may succeed; `None` if the server does not report them.

    From `Retry-After` (seconds, or a date read against the reply's own `Date`), `RateLimit: …;r=0;t=55`
    (draft-ietf-httpapi-ratelimit-headers), or the hosted service's `estimated_time`.
    """
    candidates = (
        _parse_seconds(reply.headers.get("retry-after", "")),
        _seconds_until(reply.headers, reply.headers.get("retry-after", "")),
        _rate_limit_reset(reply.headers),
        _estimated_time(reply.body),
    )
    seconds = next((value for value in candidates if value is not None), None)
    return None if seconds is None else min(max(seconds, 0.0), _MAX_REPORTED)


def _parse_seconds(text: object) -> float | None:
    try:
        value = float(text)  # type: ignore[arg-type] # raises if it is not a number
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _seconds_until(headers: Mapping[str, str], date: str) -> float | None:
    try:
        return (parsedate_to_datetime(date) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None


def quota(headers: Mapping[str, str]) -> Quota | None:
    """The server's rate limit with the least quota left, from `RateLimit: "name";r=12;t=55`; `None` without that header."""
    limits = headers.get("ratelimit", "")
    if not limits:
        return None
    windows = []
    for part in limits.split(","):
        left, reset = re.search(r";\s*r=(\d{1,9})\b", part), re.search(r";\s*t=(\d{1,9})\b", part)
        if left and reset:
            windows.append(Quota(int(left[1]), min(float(reset[1]), MAX_RETRY_AFTER)))
    return min(windows, key=lambda window: window.remaining / max(window.seconds, 1.0), default=None)


def _rate_limit_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until a rate limit with no quota left is reset."""
    left = quota(headers)
    return left.seconds if left and not left.remaining else None


def _estimated_time(body: bytes) -> float | None:
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return _parse_seconds(reply.get("estimated_time")) if isinstance(reply, dict) else None
