"""The command `hubgate job load`: a bar or lines of progress, and the summary."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from hubgate.cli.client import CommandFailed, api, segment
from hubgate.cli.jobs.progress import LINE_SECONDS
from hubgate.cli.printing import print_fields
from hubgate.domain.endpoint import Similarity
from hubgate.jobs.folder import JobFolder
from hubgate.jobs.runner import report_disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hubgate.jobs.load.loader import Progress

KEY_VARIABLE = "HUBGATE_LOAD_KEY"


def load(
    path: Path, url: str, table: str, *, create: bool, similarity: Similarity | None, restart: bool
) -> None:
    """Load an output into a table, and print the summary.

    Raises:
        CommandFailed: the load was stopped, or some vectors were refused.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise CommandFailed("Loading needs pyarrow, which is not installed. Install hubgate[bulk].")
    from hubgate.jobs.load.databases import open_target, table_name
    from hubgate.jobs.load.loader import Load
    from hubgate.jobs.load.output import open_output

    output = open_output(path)
    wanted = (similarity or _similarity(path)) if create else None
    with closing(open_target(url, table, os.environ.get(KEY_VARIABLE))) as target, report_disk_errors():
        load = Load(path, output, target, table_name(url, table))
        with _shown(load.progress):
            record = load.run(wanted, restart=restart)
    print_fields({"table": table, "vectors": f"{record.position.rows:,}", "refused": f"{record.refused:,}"})
    if record.refused:
        vectors = "1 vector was" if record.refused == 1 else f"{record.refused:,} vectors were"
        raise CommandFailed(f"{vectors} refused. The reasons are in {load.failures}.")


def _similarity(path: Path) -> Similarity:
    """That of the job's endpoint.

    Raises:
        CommandFailed: the job's folder or the endpoint is gone.
    """
    plan = JobFolder(path).plan()
    if plan is None:
        raise CommandFailed(
            "The folder of the job is gone, so its endpoint is unknown. Choose the table's --similarity."
        )
    try:
        return Similarity(api("GET", f"/api/endpoints/{segment(plan.task.endpoint)}")["similarity"])
    except CommandFailed as error:
        raise CommandFailed(f"{error} Or choose the table's --similarity.", error.cause) from None


@contextmanager
def _shown(progress: Progress) -> Iterator[None]:
    """Show the progress while the context is open."""
    ended = threading.Event()
    show = _bar if sys.stderr.isatty() else _lines
    thread = threading.Thread(target=show, args=(progress, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _bar(progress: Progress, ended: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", total=progress.total)
        while not ended.wait(0.25):
            bars.update(bar, completed=progress.rows, description=_status(progress))


def _lines(progress: Progress, ended: threading.Event) -> None:
    while not ended.wait(LINE_SECONDS):
        print(_status(progress), file=sys.stderr, flush=True)


def _status(progress: Progress) -> str:
    of = f" of {progress.total:,}" if progress.total is not None else ""
    refused = f", {progress.refused:,} refused" if progress.refused else ""
    waiting = f"; waiting: {progress.waiting_for}" if progress.waiting_for else ""
    return f"{progress.rows:,}{of} vectors{refused}{waiting}"
