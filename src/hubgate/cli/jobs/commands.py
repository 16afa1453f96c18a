"""The commands `hubgate job …`."""

from __future__ import annotations

import os
import signal
import time
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - Typer reads the types of the options
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from hubgate.cli.client import CommandFailed, require_home
from hubgate.cli.printing import format_time, print_fields, print_table
from hubgate.domain.calls import OutputDtype
from hubgate.domain.endpoint import Similarity  # noqa: TC001 - Typer reads the types of the options
from hubgate.settings import Settings

if TYPE_CHECKING:
    from hubgate.jobs.folder import JobFolder, JobRegistry

app = typer.Typer(help="Bulk jobs: a file of texts in, a file of vectors out.", no_args_is_help=True)
_STOP_TIMEOUT_SECONDS = 60.0

JobName = Annotated[str, Argument(metavar="JOB", help="The job's id, or the path of its output.")]


class Class(StrEnum):
    """Request classes."""

    BULK = "bulk"
    INTERACTIVE = "interactive"


class Texts(StrEnum):
    """Input types."""

    DOCUMENT = "document"
    QUERY = "query"
    CLASSIFICATION = "classification"
    CLUSTERING = "clustering"


@app.command("run")
def run_job(
    source: Annotated[
        Path, Argument(metavar="IN", help="A .parquet or .jsonl file, or a folder of .txt and .md files.")
    ],
    output: Annotated[Path, Argument(metavar="OUT", help="The .parquet or .jsonl file to create.")],
    endpoint: Annotated[str, Option(help="The name of an embedding endpoint.")],
    text_field: Annotated[str, Option(help="The field to embed.")] = "text",
    id_field: Annotated[
        str | None, Option(help="The field with the row's id; by default, its number.")
    ] = None,
    keep: Annotated[list[str] | None, Option(help="Another field to copy; can be repeated.")] = None,
    chunk: Annotated[
        bool,
        Option("--chunk", help="Split long texts by the endpoint's chunking settings, or to fit the model."),
    ] = False,
    input_type: Annotated[Texts, Option(help="What the texts are used for.")] = Texts.DOCUMENT,
    output_dtype: Annotated[OutputDtype, Option(help="The numbers of the vectors.")] = OutputDtype.FLOAT,
    waits: Annotated[
        Class, Option("--class", help="bulk requests wait behind all other callers.")
    ] = Class.BULK,
    wake: Annotated[
        bool, Option("--wake", help="Wake the Inference Endpoint if it is paused or scaled to zero.")
    ] = False,
    cache: Annotated[bool, Option("--cache", help="Use hubgate's vector cache, and add to it.")] = False,
    rows_per_request: Annotated[
        int | None,
        Option(help="Rows per request: 128 for a new job, unchanged for others.", min=1, max=2048),
    ] = None,
    concurrency: Annotated[int, Option(help="Concurrent requests.", min=1, max=256)] = 8,
    price_per_million_tokens: Annotated[
        float | None, Option(help="Show the cost of the job at this price.", min=0.0)
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Start over, and replace the output.")] = False,
) -> None:
    """Embed a file. After any interruption, the same command continues; a finished job is not run again."""
    from hubgate.cli.jobs.run import run
    from hubgate.jobs.folder import RunOptions, Task
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
        output_dtype=output_dtype,
        rows_per_request=rows_per_request or _rows_per_request(output, overwrite=overwrite),
    )
    options = RunOptions(
        bulk=waits is Class.BULK,
        wake=wake,
        cached=cache,
        concurrency=concurrency,
        price_per_million_tokens=price_per_million_tokens,
    )
    run(Job(task, options, overwrite=overwrite))


def _rows_per_request(output: Path, *, overwrite: bool) -> int:
    """The default, or the number of the job that continues: its shards depend on it."""
    from hubgate.jobs.folder import ROWS_PER_REQUEST, JobFolder

    plan = None if overwrite else JobFolder(output.absolute()).plan()
    return plan.task.rows_per_request if plan else ROWS_PER_REQUEST


@app.command("resume")
def resume_job(job: JobName) -> None:
    """Continue a job with the options of its last run."""
    from hubgate.cli.jobs.run import run
    from hubgate.jobs.job import Job

    plan = _find(job).plan()
    assert plan is not None  # noqa: S101 - `find` read it
    run(Job(plan.task, plan.options))


@app.command("load")
def load_output(
    output: Annotated[Path, Argument(metavar="OUT", help="The output of a job.")],
    to: Annotated[
        str,
        Option(help="The database: pgvector://, lancedb://, elasticsearch://, qdrant:// or milvus://…"),
    ],
    table: Annotated[str, Option(help="The table, index or collection.")],
    create: Annotated[bool, Option("--create", help="Create the table if there is none.")] = False,
    similarity: Annotated[
        Similarity | None, Option(help="Of a new table; by default, that of the endpoint.")
    ] = None,
    restart: Annotated[bool, Option("--restart", help="Load everything again.")] = False,
) -> None:
    """Load a job's vectors into a vector database. After any interruption, the same command continues."""
    from hubgate.cli.jobs.load import load

    load(output.absolute(), to, table, create=create, similarity=similarity, restart=restart)


@app.command("list")
def list_jobs() -> None:
    """List the jobs of this home."""
    require_home(Settings.from_env())
    rows = []
    for job in _registry().list():
        totals, plan = job.totals(), job.plan()
        rows.append(
            (
                job.id,
                job.state().status,
                f"{totals.rows:,}",
                f"{totals.failed:,}",
                plan and plan.task.endpoint,
                plan and format_time(plan.created_at),
                job.output,
            )
        )
    print_table(("id", "status", "rows", "failed", "endpoint", "created", "output"), rows)


@app.command("show")
def show_job(job: JobName) -> None:
    """Show a job and its progress."""
    from hubgate.cli.jobs.progress import summary

    folder = _find(job)
    plan, state = folder.plan(), folder.state()
    assert plan is not None  # noqa: S101 - `find` read it
    totals = folder.totals()
    print_fields(
        {
            "id": folder.id,
            "status": state.status,
            **({"reason": state.reason} if state.reason else {}),
            "created": format_time(plan.created_at),
            **({"ended": format_time(state.at)} if state.at else {}),
            "worked": f"{state.worked_seconds:.0f} s",
            "input": plan.task.input,
            "output": plan.task.output,
            "endpoint": plan.task.endpoint,
            "model": plan.model["model"],
            **({"expected rows": f"{plan.expected_rows:,}"} if plan.expected_rows else {}),
            **summary(totals, plan.options.price_per_million_tokens),
            **({"failed rows": folder.failures} if totals.failed else {}),
        }
    )


@app.command("cancel")
def cancel_job(
    job: JobName,
    delete: Annotated[
        bool, Option("--delete", help="Also delete the finished work. A complete output is kept.")
    ] = False,
) -> None:
    """Stop a job. Finished work is kept, so that the job can be resumed."""
    from hubgate.jobs.folder import Status

    folder = _find(job)
    if (pid := folder.worker()) is not None:
        _stop(folder, pid)
    with folder.locked():
        if delete:
            folder.clear()
        elif folder.last_state().status is Status.DONE:
            print(f"{folder.output} is already done.")
            return
        else:
            folder.write_state(Status.CANCELLED)
    if delete:
        _registry().remove(folder)
    print(f"Cancelled {folder.output}{' and deleted its finished work' if delete else ''}.")


def _stop(folder: JobFolder, pid: int) -> None:
    """Stop the process of a job, and wait for its end.

    Raises:
        CommandFailed: it belongs to another user, or does not stop.
    """
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:  # it has just ended, or runs in another container
        pass
    except PermissionError:
        raise CommandFailed(f"The job's process {pid} belongs to another user.") from None
    until = time.monotonic() + _STOP_TIMEOUT_SECONDS
    while folder.worker() is not None:
        if time.monotonic() > until:
            raise CommandFailed(f"Process {pid} does not stop. Run `kill -9 {pid}`: finished work is kept.")
        time.sleep(0.05)


def _registry() -> JobRegistry:
    from hubgate.jobs.folder import JobRegistry

    return JobRegistry(Settings.from_env().home)


def _find(name: str) -> JobFolder:
    return _registry().find(name)
