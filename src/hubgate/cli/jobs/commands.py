"""`hubgate job …`: a file of texts in, a file of vectors out."""

from __future__ import annotations

import os
import signal
import time
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - Typer reads the types of the options
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from hubgate.cli.client import CommandFailed, need_home
from hubgate.cli.printing import moment, print_fields, print_table
from hubgate.settings import Settings

if TYPE_CHECKING:
    from hubgate.jobs.folder import JobFolder
    from hubgate.jobs.registry import KnownJobs

app = typer.Typer(help="Bulk jobs: a file of texts in, a file of vectors out.", no_args_is_help=True)
_STOP_SECONDS = 60.0

Which = Annotated[str, Argument(metavar="JOB", help="Its id, or the path of its output.")]


class Class(StrEnum):
    """Whom a job's requests wait for."""

    BULK = "bulk"
    INTERACTIVE = "interactive"


class Texts(StrEnum):
    """What the texts of a job are for."""

    DOCUMENT = "document"
    QUERY = "query"
    CLASSIFICATION = "classification"
    CLUSTERING = "clustering"


@app.command("run")
def run_job(
    source: Annotated[
        Path, Argument(metavar="IN", help="A .parquet or .jsonl file, or a folder of .txt and .md files.")
    ],
    output: Annotated[Path, Argument(metavar="OUT", help="The .parquet or .jsonl file to be made.")],
    endpoint: Annotated[str, Option(help="The name of the endpoint that embeds.")],
    text_field: Annotated[str, Option(help="The field that is embedded.")] = "text",
    id_field: Annotated[str | None, Option(help="The field that names a row; else its number does.")] = None,
    keep: Annotated[list[str] | None, Option(help="A further field to write along; may be repeated.")] = None,
    chunk: Annotated[
        bool,
        Option(
            "--chunk",
            help="Cut long texts into chunks that fit the model, or as the endpoint's settings say.",
        ),
    ] = False,
    input_type: Annotated[Texts, Option(help="What the texts are for.")] = Texts.DOCUMENT,
    waits: Annotated[
        Class, Option("--class", help="bulk waits behind all other callers of the gate.")
    ] = Class.BULK,
    cache: Annotated[
        bool, Option("--cache", help="Use the gate's remembered vectors, and fill them.")
    ] = False,
    rows_per_request: Annotated[
        int | None,
        Option(
            help="Rows in a request: 128, or what the job that continues was started with.", min=1, max=2048
        ),
    ] = None,
    concurrency: Annotated[int, Option(help="Requests at once.", min=1, max=256)] = 8,
    price_per_million_tokens: Annotated[
        float | None, Option(help="Tells what the job costs.", min=0.0)
    ] = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Begin anew, whatever was done, and replace the output.")
    ] = False,
) -> None:
    """Embed a file. However it ends, the same command goes on where it was; a finished job is not done again."""
    from hubgate.cli.jobs.run import do
    from hubgate.jobs.folder import Manner, Task
    from hubgate.jobs.job import Job

    task = Task(
        input=str(source.absolute()),
        output=str(output.absolute()),
        endpoint=endpoint,
        text_field=text_field,
        id_field=id_field,
        keep=tuple(keep or ()),
        chunk=chunk,
        input_type=input_type,
        rows_per_request=rows_per_request or _rows_per_request(output, overwrite=overwrite),
    )
    manner = Manner(
        bulk=waits is Class.BULK,
        cached=cache,
        concurrency=concurrency,
        price_per_million_tokens=price_per_million_tokens,
    )
    do(Job(task, manner, overwrite=overwrite))


def _rows_per_request(output: Path, *, overwrite: bool) -> int:
    """The default, or that of the job that continues: what it has done is known by its requests."""
    from hubgate.jobs.folder import ROWS_PER_REQUEST, JobFolder

    plan = None if overwrite else JobFolder(output.absolute()).plan()
    return plan.task.rows_per_request if plan else ROWS_PER_REQUEST


@app.command("resume")
def resume_job(job: Which) -> None:
    """Go on with a job, as its last run did it."""
    from hubgate.cli.jobs.run import do
    from hubgate.jobs.job import Job

    plan = _find(job).plan()
    assert plan is not None  # noqa: S101 - it was found by its plan
    do(Job(plan.task, plan.manner))


@app.command("list")
def list_jobs() -> None:
    """List the jobs of this home, with how each stands."""
    need_home(Settings.from_env())
    rows = []
    for job in _known().list():
        totals, plan = job.totals(), job.plan()
        rows.append(
            (
                job.id,
                job.state().status,
                f"{totals.rows:,}",
                f"{totals.failed:,}",
                plan and plan.task.endpoint,
                plan and moment(plan.created_at),
                job.output,
            )
        )
    print_table(("id", "status", "rows", "failed", "endpoint", "created", "output"), rows)


@app.command("show")
def show_job(job: Which) -> None:
    """Show a job, and how it stands."""
    from hubgate.cli.jobs.progress import told

    folder = _find(job)
    plan, state = folder.plan(), folder.state()
    assert plan is not None  # noqa: S101 - it was found by its plan
    totals = folder.totals()
    print_fields(
        {
            "id": folder.id,
            "status": state.status,
            **({"reason": state.reason} if state.reason else {}),
            "created": moment(plan.created_at),
            **({"ended": moment(state.at)} if state.at else {}),
            "worked": f"{state.worked_seconds:.0f} s",
            "input": plan.task.input,
            "output": plan.task.output,
            "endpoint": plan.task.endpoint,
            "model": plan.model["model"],
            **({"expected rows": f"{plan.expected_rows:,}"} if plan.expected_rows else {}),
            **told(totals, plan.manner.price_per_million_tokens),
            **({"failed rows": folder.failures} if totals.failed else {}),
        }
    )


@app.command("cancel")
def cancel_job(
    job: Which,
    delete: Annotated[
        bool, Option("--delete", help="Delete what it has done, too; an output that is whole stays.")
    ] = False,
) -> None:
    """Stop a job, if it runs. What it has done is kept, so that it can be resumed."""
    from hubgate.jobs.folder import Status

    folder = _find(job)
    if (pid := folder.worker()) is not None:
        _stop(folder, pid)
    with folder.held():
        if delete:
            folder.clear()
        elif folder.last_state().status is Status.DONE:
            print(f"{folder.output} is done: there is nothing to cancel.")
            return
        else:
            folder.write_state(Status.CANCELLED)
    if delete:
        _known().forget(folder)
    print(f"Cancelled {folder.output}{', and deleted what it had done' if delete else ''}.")


def _stop(folder: JobFolder, pid: int) -> None:
    """Ask the process of a job to stop, and wait until it has.

    Raises:
        CommandFailed: it is another user's, or does not stop.
    """
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:  # it has just ended; or it is out of sight, and will not
        pass
    except PermissionError:
        raise CommandFailed(f"The job is another user's: process {pid}.") from None
    until = time.monotonic() + _STOP_SECONDS
    while folder.worker() is not None:
        if time.monotonic() > until:
            raise CommandFailed(f"Process {pid} does not stop. To kill it (kill -9 {pid}) loses nothing.")
        time.sleep(0.05)


def _known() -> KnownJobs:
    from hubgate.jobs.registry import KnownJobs

    return KnownJobs(Settings.from_env().home)


def _find(name: str) -> JobFolder:
    return _known().find(name)
