"""A scripted upstream in virtual time: it replies after a delay or fails, and records its calls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from virtual_time import now

from hubgate.domain.calls import Context, Embed, Encoding, FreshVectors, Tokenize, Tokens, Vectors
from hubgate.domain.errors import Cause, UpstreamRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hubgate.domain.calls import CachedVector, Call, Result


def vector(text: str) -> bytes:
    """The vector of a text: its last four bytes."""
    return text.encode()[-4:].rjust(4)


def embed(*texts: str, caller: str = "-", bulk: bool = False, deadline: float | None = None) -> Embed:
    """An embed call whose request id is its first text."""
    context = Context(request_id=texts[0] if texts else "-", caller=caller, bulk=bulk, deadline=deadline)
    return Embed(texts=texts, context=context)


def refused(status: int = 422, cause: Cause = Cause.INPUT_REFUSED, message: str = "") -> UpstreamRefused:
    """The error of an upstream that refuses a call."""
    return UpstreamRefused(f"It refused: {message}", status=status, cause=cause, server_message=message)


def fresh(entries: Mapping[bytes, CachedVector]) -> FreshVectors:
    """What a model returned to become these cache entries, which must be alike: in encoding, and in what is known."""
    some, *_ = found = list(entries.values())
    tokens = [entry.tokens for entry in found]
    truncated = [entry.truncated for entry in found]
    vectors = Vectors(
        items=[entry.vector for entry in found],
        encoding=some.encoding,
        exact=some.exact,
        text_tokens=None if None in tokens else cast("Sequence[int]", tokens),
        text_truncated=None if None in truncated else cast("Sequence[bool]", truncated),
    )
    return FreshVectors(list(entries), [""] * len(entries), vectors)


@dataclass
class ScriptedUpstream:
    """Replies after `seconds`, or raises what `fault` returns for the texts. Records each call and its time."""

    seconds: float = 0.1
    fault: Callable[[Sequence[str]], Exception | None] = lambda texts: None
    asked: list[list[str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    cancelled: int = 0
    busy: int = 0
    busiest: int = 0

    async def __call__(self, call: Call) -> Result:
        self.calls.append(call)
        self.asked.append(list(call.texts))
        self.times.append(now())
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.busy -= 1
        if error := self.fault(call.texts):
            raise error
        if isinstance(call, Tokenize):
            return Tokens([[] for _ in call.texts])
        return Vectors(
            items=[vector(text) for text in call.texts],
            encoding=Encoding.F32,
            tokens=len(call.texts) * 10,
            exact=True,
        )
