"""The progress of a bulk job: a bar in a terminal, otherwise a line from time to time."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hubgate.features.bulk.engine.manifest import Totals
    from hubgate.features.bulk.engine.runner import Progress

_REDRAW_SECONDS, LINE_SECONDS, WAITING_LINE_SECONDS = 0.25, 30.0, 60.0


@asynccontextmanager
async def show_progress(
    progress: Progress,
    price: float | None,
    *,
    every: float = LINE_SECONDS,
    waiting: float = WAITING_LINE_SECONDS,
) -> AsyncIterator[None]:
    """Show the progress while the context is open.

    Args:
        progress: read repeatedly.
        price: per million tokens, if known.
        every: seconds between lines, without a terminal.
        waiting: seconds between lines with the same reason to wait.
    """
    drawing = _bar(progress, price) if sys.stderr.isatty() else _lines(progress, price, every, waiting)
    showing = asyncio.create_task(drawing)
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.wait({showing})


def summary(totals: Totals, price: float | None) -> dict[str, str]:
    about = "" if totals.exact else "about "
    fields = {
        "rows": f"{totals.rows:,}",
        "failed": f"{totals.failed:,}",
        "vectors": f"{totals.pieces:,}",
        "tokens": f"{about}{totals.tokens:,}",
        "truncated": _truncated(totals),
    }
    return fields if price is None else {**fields, "cost": f"{about}{cost(totals, price):,.4f}"}


def _truncated(totals: Totals) -> str:
    """How many texts or chunks are longer than the model reads."""
    unread = f" ({totals.unread:,} tokens not read)" if totals.truncated else ""
    known = f"{totals.truncated:,}{unread}"
    if not totals.unknown_cuts:
        return known
    return (
        "unknown"
        if totals.unknown_cuts == totals.pieces
        else f"{known}; unknown for {totals.unknown_cuts:,} of them"
    )


def cost(totals: Totals, price: float) -> float:
    return totals.tokens * price / 1_000_000


async def _bar(progress: Progress, price: float | None) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.percentage:3.0f} %"),
        BarColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", total=None)
        while True:
            totals = progress.totals
            bars.update(
                bar,
                total=progress.expected_rows,
                completed=totals.rows,
                description=status_line(progress, price),
            )
            await asyncio.sleep(_REDRAW_SECONDS)


async def _lines(progress: Progress, price: float | None, every: float, waiting: float) -> None:
    reason, printed_at = None, 0.0
    while True:
        await asyncio.sleep(every)
        is_same_reason = progress.waiting_for is not None and progress.waiting_for == reason
        if is_same_reason and time.monotonic() - printed_at < waiting:
            continue
        reason, printed_at = progress.waiting_for, time.monotonic()
        print(status_line(progress, price), file=sys.stderr, flush=True)


def status_line(progress: Progress, price: float | None) -> str:
    totals, expected = progress.totals, progress.expected_rows
    if progress.waiting_for is not None:
        return f"{totals.rows:,} rows; waiting: {progress.waiting_for}"
    if progress.is_writing_output:
        return f"{totals.rows:,} rows; writing the output"
    rate = progress.rate
    parts = [
        f"{totals.rows:,} of {expected:,} rows" if expected else f"{totals.rows:,} rows",
        f"{rate:,.0f}/s",
        f"{totals.tokens:,} tokens",
    ]
    if price is not None:
        expected_cost = cost(totals, price) * (
            max(expected or 0, totals.rows) / totals.rows if totals.rows else 0
        )
        parts.append(f"cost {cost(totals, price):,.2f} of about {expected_cost:,.2f}")
    if totals.failed:
        parts.append(f"{totals.failed:,} failed")
    if expected and rate:
        parts.append(f"{duration(max(expected - totals.rows, 0) / rate)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
