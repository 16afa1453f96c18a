"""Runs a job for its command: starts a gateway if needed, shows progress, handles signals, prints the summary."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from hubgate.features.bulk.engine.manifest import Totals
from hubgate.features.bulk.engine.runner import Progress, report_disk_errors
from hubgate.features.bulk.folder import JobRegistry
from hubgate.features.bulk.http import GatewayEmbedder
from hubgate.features.bulk.progress import show_progress, summary
from hubgate.features.bulk.waking import announce
from hubgate.settings import Settings
from hubgate.store.lock import home_error
from hubgate.terminal.client import CommandFailed, own_gateway
from hubgate.terminal.memory import tune_for_requests
from hubgate.terminal.printing import print_fields

if TYPE_CHECKING:
    from pathlib import Path

    from hubgate.features.bulk.engine.rows import Source
    from hubgate.features.bulk.folder import RunOptions, Task
    from hubgate.features.bulk.job import Job

_STOPPED = (
    "The job was stopped. To continue, run the same command again, or `hubgate job resume` with its output."
)


def run(job: Job) -> None:
    """Run a job until it is done, and print its summary.

    Raises:
        CommandFailed: the job was stopped, or some rows have no vector.
    """
    job.check()
    with report_disk_errors(), job.folder.locked():
        source, is_done = job.open()
        if is_done:
            print("This job is already done. To start over, run it with --overwrite.")
        else:
            _register(job)
            _embed(job, source)
        totals = job.folder.totals()
    print_end(job.task, job.options, totals, job.folder.failures)


def print_end(task: Task, options: RunOptions, totals: Totals, failures: Path | str) -> None:
    """Print the summary of a job.

    Raises:
        CommandFailed: some rows have no vector.
    """
    print_fields({"output": task.output, **summary(totals, options.price_per_million_tokens)})
    if totals.truncated:
        what = "chunk" if task.chunk else "text"
        remedy = "Change the endpoint's chunking_settings." if task.chunk else "Use --chunk to split them."
        print(
            f"hubgate: {totals.truncated:,} of {totals.pieces:,} {what}s are longer than the model reads: "
            f"{totals.unread:,} tokens are in no vector. {remedy}",
            file=sys.stderr,
        )
    if totals.failed:
        rows = "1 row has" if totals.failed == 1 else f"{totals.failed:,} rows have"
        raise CommandFailed(f"{rows} no vector. The reasons are in {failures}.")


def _register(job: Job) -> None:
    home = Settings.from_env().home
    try:
        JobRegistry(home).add(job.folder)
    except OSError as error:
        raise home_error(home, error) from error


def _embed(job: Job, source: Source) -> None:
    settings = Settings.from_env()
    tune_for_requests()
    with own_gateway.get()(settings):
        announce(job.task.endpoint)
        try:
            asyncio.run(_run(job, source, settings))
        except asyncio.CancelledError:  # SIGTERM
            raise CommandFailed(_STOPPED) from None
        except KeyboardInterrupt:  # Ctrl-C: every command exits with 130
            print(f"hubgate: {_STOPPED}", file=sys.stderr)
            raise


async def _run(job: Job, source: Source, settings: Settings) -> None:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    progress = Progress(Totals())
    async with (
        GatewayEmbedder(settings.home, job.task, job.options) as embedder,
        show_progress(progress, job.options.price_per_million_tokens),
    ):
        await job.run(source, embedder, progress)
