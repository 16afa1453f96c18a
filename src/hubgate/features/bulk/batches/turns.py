"""When a batch gives its place at a gateway to another one.

A batch may wait for days, for a paused endpoint or for the limit of its key, and nobody may keep all places for so long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hubgate.features.bulk.batches.model import Turns
from hubgate.features.bulk.batches.run import BatchRun


class Patience(NamedTuple):
    """When a batch gives its place back, if others wait. In seconds."""

    idle: float = 30.0
    """Without an answer to any of its requests."""
    turn: float = 300.0
    """If a key without a place waits."""
    look: float = 5.0
    """How often a gateway without a free place looks for batches that wait for one."""


PATIENCE = Patience()


def leavers(
    runs: Sequence[BatchRun], turns: Mapping[str, Turns], patience: Patience, now: float
) -> Sequence[BatchRun]:
    """Which runs give their place back.

    Those that only wait do, for any batch. Then, for keys without a place, those of keys with several places, and those
    that had a turn.

    Args:
        runs: of this gateway.
        turns: of all gateways.
        patience: the limits.
        now: on the monotonic clock.
    """
    waiting = sum(turn.waiting for turn in turns.values())
    rivals = sum(1 for turn in turns.values() if turn.waiting and not turn.held)
    held = Counter({key: turn.held for key, turn in turns.items()})
    found: list[BatchRun] = []

    def leave(run: BatchRun) -> None:
        nonlocal waiting, rivals
        waiting, rivals = waiting - 1, rivals - 1
        held[run.batch.key] -= 1

    for run in runs:
        if run.is_leaving:
            leave(run)
    for run in sorted(runs, key=lambda run: run.began_at):
        is_idle = now - run.answered_at >= patience.idle and waiting > 0
        had_turn = held[run.batch.key] > 1 or now - run.began_at >= patience.turn
        if not run.is_leaving and (is_idle or (had_turn and rivals > 0)):
            found.append(run)
            leave(run)
    return found
