"""The command `hubgate job load`: a bar or lines of progress, and the summary."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from hubgate.domain.endpoint import Similarity
from hubgate.features.bulk.engine.runner import report_disk_errors
from hubgate.features.bulk.folder import JobFolder
from hubgate.features.bulk.job_parts import is_on_ray
from hubgate.features.bulk.progress import LINE_SECONDS
from hubgate.files import create_private_folder
from hubgate.settings import Settings
from hubgate.terminal.client import CommandFailed, api, segment
from hubgate.terminal.memory import tune_for_database_clients
from hubgate.terminal.printing import print_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubgate.features.bulk.load.loader import Progress
    from hubgate.features.bulk.load.output import JobOutput

KEY_VARIABLE = "HUBGATE_LOAD_KEY"


def load(
    place: str, url: str, table: str, *, create: bool, similarity: Similarity | None, restart: bool
) -> None:
    """Load an output into a table, and print the summary.

    Raises:
        CommandFailed: the load was stopped, or some vectors were refused.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise CommandFailed("Loading needs pyarrow, which is not installed. Install hubgate[bulk].")
    tune_for_database_clients()
    from hubgate.features.bulk.load.databases import open_target, table_name
    from hubgate.features.bulk.load.loader import Load

    output, endpoint, record = _open(place)
    wanted = (similarity or _similarity(endpoint)) if create else None
    with closing(open_target(url, table, os.environ.get(KEY_VARIABLE))) as target, report_disk_errors():
        load = Load(record, output, target, table_name(url, table))
        with _shown(load.progress):
            done = load.run(wanted, restart=restart)
    print_fields({"table": table, "vectors": f"{done.position.rows:,}", "refused": f"{done.refused:,}"})
    if done.refused:
        vectors = "1 vector was" if done.refused == 1 else f"{done.refused:,} vectors were"
        raise CommandFailed(f"{vectors} refused. The reasons are in {load.failures}.")


def _open(place: str) -> tuple[JobOutput, str | None, Path]:
    """An output, its endpoint if that is known, and the path beside which the record of a load is."""
    if not is_on_ray(place):
        from hubgate.features.bulk.load.output import open_output

        path = Path(place)
        plan = JobFolder(path).plan()
        return open_output(path), plan.task.endpoint if plan else None, path
    from hubgate.features.bulk.load.parts import PartsOutput

    parts = PartsOutput(place)
    if "://" not in place:
        return parts, parts.endpoint, Path(place)
    folder = Settings.from_env().home / "loads"
    create_private_folder(folder)
    digest = blake2b(place.encode(), digest_size=4).hexdigest()
    return parts, parts.endpoint, folder / f"{place.rpartition('/')[2]}-{digest}"


def _similarity(endpoint: str | None) -> Similarity:
    """That of the job's endpoint.

    Raises:
        CommandFailed: the job's folder or the endpoint is gone.
    """
    if endpoint is None:
        raise CommandFailed(
            "The folder of the job is gone, so its endpoint is unknown. Choose the table's --similarity."
        )
    try:
        return Similarity(api("GET", f"/api/endpoints/{segment(endpoint)}")["similarity"])
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
