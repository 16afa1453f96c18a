"""Questions and answers about shared limits, as the functions of PostgreSQL take and give them.

They count in microseconds, in integers.
"""

from __future__ import annotations

from collections.abc import Iterable

from hubgate.domain.cluster_ports import BeatAnswer, SlotAnswer
from hubgate.domain.records import Exhausted

_EXHAUSTED = ("", "requests", "tokens")
_MICROSECONDS = 1_000_000


def microseconds(seconds: float) -> int:
    return round(seconds * _MICROSECONDS)


def seconds(microseconds: int) -> float:
    return microseconds / _MICROSECONDS


def slot_answer(values: Iterable[int]) -> SlotAnswer:
    now, first, granted, step, horizon, gateways = values
    return SlotAnswer(
        now=now / _MICROSECONDS,
        first=first / _MICROSECONDS,
        granted=granted,
        step=step / _MICROSECONDS,
        horizon=horizon / _MICROSECONDS,
        gateways=gateways,
    )


def beat_answer(values: Iterable[int]) -> BeatAnswer:
    now, gateways = values
    return BeatAnswer(now=now / _MICROSECONDS, gateways=gateways)


def exhausted(values: Iterable[int]) -> Exhausted | None:
    what, wait = values
    return Exhausted(_EXHAUSTED[what], seconds(wait)) if what else None
