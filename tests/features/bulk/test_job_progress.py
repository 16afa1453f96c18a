"""The progress that a job shows."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from hubgate.features.bulk.engine.manifest import Record, Totals
from hubgate.features.bulk.engine.rows import FailedRow
from hubgate.features.bulk.engine.runner import Progress
from hubgate.features.bulk.progress import show_progress, status_line, summary


@dataclass
class Timer:
    """A clock that is moved by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def at(rows: int = 0, *, timer: Timer | None = None) -> Progress:
    """A job that was done so far before this run."""
    return Progress(Totals(rows=rows), clock=timer or Timer())


def answered(progress: Progress, rows: int, tokens: int = 0, failed: int = 0) -> None:
    """One more shard."""
    faults = [FailedRow(row=n, id=n, cause="empty_text", message="Empty.") for n in range(failed)]
    progress.add(
        Record(
            shard=0, digest="", rows=rows, pieces=rows, tokens=tokens, exact=True, part=None, failed=faults
        )
    )


def test_status_line_shows_rows_rate_tokens_cost_and_remaining_time() -> None:
    timer = Timer()
    progress = at(timer=timer)
    progress.expected_rows = 12_000
    for _ in range(30):
        timer.now += 2.0
        answered(progress, 100, tokens=20_000)
    assert status_line(progress, 0.2) == (
        "3,000 of 12,000 rows, 50/s, 600,000 tokens, cost 0.12 of about 0.48, 3:00 left"
    )
    answered(progress, 0, failed=2)
    progress.expected_rows = 1_000_000
    assert status_line(progress, None).endswith(", 2 failed, 5:32:20 left")


def test_rate_is_that_of_the_last_minute_of_this_run() -> None:
    timer = Timer()
    progress = at(2000, timer=timer)
    timer.now += 10.0
    answered(progress, 5000)
    assert progress.rate == 500
    for _ in range(60):  # slower from now on
        timer.now += 1.0
        answered(progress, 10)
    assert status_line(progress, None) == "7,600 rows, 10/s, 0 tokens"
    timer.now += 60.0  # nothing is answered any more
    progress.expected_rows = 10_000
    assert status_line(progress, None) == "7,600 of 10,000 rows, 0/s, 0 tokens"


@pytest.mark.parametrize(
    ("cuts", "told"),
    [
        ([0, 0], "0"),
        ([0, 1200], "1 (1,200 tokens not read)"),
        ([None, None], "unknown"),
        ([1200, None], "1 (1,200 tokens not read); unknown for 1 of them"),
    ],
)
def test_truncated_tokens_are_summed(cuts: list[int | None], told: str) -> None:
    totals = Totals()
    records = [
        Record(
            shard=0,
            digest="",
            rows=1,
            pieces=1,
            tokens=1,
            exact=True,
            part=None,
            truncated=None if unread is None else bool(unread),
            unread=unread or 0,
        )
        for unread in cuts
    ]
    for record in records:
        totals.add(record)
    assert summary(totals, None)["truncated"] == told
    for record in records:
        totals.add(record, -1)
    assert totals == Totals()


def test_waiting_reason_and_output_writing_are_shown() -> None:
    progress = at(5)
    progress.is_writing_output = True
    assert status_line(progress, None) == "5 rows; writing the output"
    progress.waiting_for = "The gate does not run any more."
    assert status_line(progress, None) == "5 rows; waiting: The gate does not run any more."


def test_status_line_before_the_first_row_shows_zero_cost() -> None:
    assert status_line(at(), 0.2) == "0 rows, 0/s, 0 tokens, cost 0.00 of about 0.00"


async def test_status_lines_are_printed_periodically_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = ""
    async with asyncio.timeout(240), show_progress(at(5), None, every=0.0):
        while said.count("\n") < 2:
            await asyncio.sleep(0)
            said += capsys.readouterr().err
    assert said.startswith("5 rows, ")


async def test_waiting_reason_is_printed_once_per_interval_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = at()
    progress.waiting_for = "The gate does not run any more."
    async with asyncio.timeout(240), show_progress(progress, None, every=0.0, waiting=math.inf):
        for _ in range(50):
            await asyncio.sleep(0)
        assert capsys.readouterr().err == "0 rows; waiting: The gate does not run any more.\n"
        progress.waiting_for = "The gate is starting."
        for _ in range(50):
            await asyncio.sleep(0)
        assert capsys.readouterr().err == "0 rows; waiting: The gate is starting.\n"
        progress.waiting_for = None
        for _ in range(50):
            await asyncio.sleep(0)
        assert capsys.readouterr().err.count("0 rows, 0/s") > 1
    progress.waiting_for = "The gate does not run any more."
    async with asyncio.timeout(240), show_progress(progress, None, every=0.0, waiting=0.0):
        for _ in range(50):
            await asyncio.sleep(0)
    assert capsys.readouterr().err.count("waiting: The gate does not run any more.") > 1


_IN_A_TERMINAL = """
import asyncio, os, pty, sys
terminal, end = pty.openpty()
os.dup2(end, 2)
sys.stderr = os.fdopen(2, "w")
from hubgate.features.bulk.progress import show_progress
from hubgate.features.bulk.engine.manifest import Totals
from hubgate.features.bulk.engine.runner import Progress
progress = Progress(Totals(rows=5), expected_rows=10)

async def main():
    async with show_progress(progress, None):
        said = ""
        while "50 %" not in said or "5 of 10 rows" not in said:
            said += (await asyncio.to_thread(os.read, terminal, 1000)).decode()
        progress.waiting_for = "Endpoint [words] is overloaded."
        while "overloaded." not in said:
            said += (await asyncio.to_thread(os.read, terminal, 1000)).decode()
        assert "waiting: Endpoint [words] is overloaded." in said

asyncio.run(main())
"""


def test_terminal_shows_a_progress_bar() -> None:
    subprocess.run(
        [sys.executable, "-c", _IN_A_TERMINAL],
        env={**os.environ, "COLUMNS": "200", "TERM": "xterm"},
        timeout=240,
        check=True,
    )
