"""A job from its command to its end: the gate, the bar, the signals, and what is told of it."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from hubgate.cli.client import CommandFailed
from hubgate.cli.jobs.embedder import GateEmbedder
from hubgate.cli.jobs.gateway import some_gate
from hubgate.cli.jobs.progress import shown, told
from hubgate.cli.printing import print_fields
from hubgate.cli.server.gc_tuning import spare_the_collector
from hubgate.jobs.manifest import Totals
from hubgate.jobs.registry import KnownJobs
from hubgate.jobs.runner import Progress, written
from hubgate.settings import Settings
from hubgate.store.lock import home_error

if TYPE_CHECKING:
    from hubgate.jobs.job import Job
    from hubgate.jobs.rows import Source

_STOPPED = (
    "The job was stopped. To continue, run the same command again, or `hubgate job resume` with its output."
)


def do(job: Job) -> None:
    """Do a job to its end, and tell how it went."""
    job.check()
    with written(), job.folder.held():
        source, done = job.open()
        if done:
            print("This job is already done. To start over, run it with --overwrite.")
        else:
            _remember(job)
            _work(job, source)
        totals = job.folder.totals()
    print_fields({"output": job.task.output, **told(totals, job.manner.price_per_million_tokens)})
    if totals.truncated:
        what = "chunk" if job.task.chunk else "text"
        remedy = (
            "Change the endpoint's chunking_settings."
            if job.task.chunk
            else "With --chunk, they are divided."
        )
        print(
            f"hubgate: {totals.truncated:,} of {totals.pieces:,} {what}s are longer than the model reads: "
            f"{totals.unread:,} tokens are in no vector. {remedy}",
            file=sys.stderr,
        )
    if totals.failed:
        rows = "1 row has" if totals.failed == 1 else f"{totals.failed:,} rows have"
        raise CommandFailed(f"{rows} no vector. {job.folder.failures} tells why.")


def _remember(job: Job) -> None:
    home = Settings.from_env().home
    try:
        KnownJobs(home).add(job.folder)
    except OSError as error:
        raise home_error(home, error) from error


def _work(job: Job, source: Source) -> None:
    settings = Settings.from_env()
    spare_the_collector()
    with some_gate(settings):
        try:
            asyncio.run(_embed(job, source, settings))
        except asyncio.CancelledError:  # SIGTERM
            raise CommandFailed(_STOPPED) from None
        except KeyboardInterrupt:  # Ctrl-C: every command ends with 130 then
            print(f"hubgate: {_STOPPED}", file=sys.stderr)
            raise


async def _embed(job: Job, source: Source, settings: Settings) -> None:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    progress = Progress(Totals())
    async with (
        GateEmbedder(settings.home, job.task, job.manner) as embedder,
        shown(progress, job.manner.price_per_million_tokens),
    ):
        await job.run(source, embedder, progress)
