"""The commands `hubgate job …` and `hubgate files`."""

from __future__ import annotations

import os
import signal
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from hubgate.core.estimates.sampling import SAMPLE_TEXTS
from hubgate.domain.endpoint import (
    OutputDtype,
    Similarity,
)
from hubgate.features.bulk.options import (
    Cache,
    Chunk,
    Concurrency,
    EndpointName,
    GatewayUrl,
    IdField,
    In,
    InputType,
    LocalOnWorkers,
    On,
    Out,
    Overwrite,
    Price,
    RayOptions,
    RowsPerRequest,
    RowsPerTask,
    Tasks,
    TextField,
    Texts,
    place_of,
)
from hubgate.settings import Settings
from hubgate.terminal.client import CommandFailed, api, require_home
from hubgate.terminal.commands import Command
from hubgate.terminal.printing import format_bytes, format_time, print_fields, print_table

if TYPE_CHECKING:
    from hubgate.features.bulk.folder import JobFolder, JobRegistry, RunOptions, Task

app = typer.Typer(help="Bulk jobs: a file of texts in, a file of vectors out.", no_args_is_help=True)
_STOP_TIMEOUT_SECONDS = 60.0

JobName = Annotated[str, Argument(metavar="JOB", help="The job's id, or the path of its output.")]


class Class(StrEnum):
    """Request classes."""

    BULK = "bulk"
    INTERACTIVE = "interactive"


@app.command("run")
def run_job(
    source: In,
    output: Out,
    endpoint: EndpointName,
    text_field: TextField = "text",
    id_field: IdField = None,
    keep: Annotated[list[str] | None, Option(help="Another field to copy; can be repeated.")] = None,
    chunk: Chunk = False,
    input_type: InputType = Texts.DOCUMENT,
    output_dtype: Annotated[OutputDtype, Option(help="The number type of the vectors.")] = OutputDtype.FLOAT,
    waits: Annotated[
        Class, Option("--class", help="bulk requests wait behind all other callers.")
    ] = Class.BULK,
    cache: Cache = False,
    rows_per_request: RowsPerRequest = None,
    concurrency: Concurrency = 8,
    price_per_million_tokens: Price = None,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Only estimate the job, as `hubgate job estimate` does.")
    ] = False,
    on: On = None,
    gateway: GatewayUrl = None,
    tasks: Tasks = None,
    rows_per_task: RowsPerTask = None,
    local_on_workers: LocalOnWorkers = False,
) -> None:
    """Embed a file. After any interruption, the same command continues; a finished job is not run again."""
    from hubgate.features.bulk.folder import RunOptions, Task

    task = Task(
        input=place_of(source),
        output=place_of(output),
        endpoint=endpoint,
        text_field=text_field,
        id_field=id_field,
        keep=tuple(keep or ()),
        chunk=chunk,
        input_type=input_type,
        output_dtype=output_dtype,
        rows_per_request=rows_per_request or _rows_per_request(output, is_new=overwrite or on is not None),
    )
    options = RunOptions(
        bulk=waits is Class.BULK,
        cached=cache,
        concurrency=concurrency,
        price_per_million_tokens=price_per_million_tokens,
    )
    on_ray = RayOptions(on, gateway, tasks, rows_per_task, local_on_workers)
    _run(task, options, on_ray, overwrite=overwrite, dry_run=dry_run)


def _run(task: Task, options: RunOptions, on_ray: RayOptions, *, overwrite: bool, dry_run: bool) -> None:
    from hubgate.features.bulk.job import Job
    from hubgate.features.bulk.local import run

    if on_ray.on is not None:
        if dry_run:
            raise CommandFailed("--dry-run does not work with --on: estimate one of the files without --on.")
        from hubgate.features.bulk.ray.command import run_on_ray

        run_on_ray(task, options, on_ray, overwrite=overwrite)
        return
    if on_ray.has_any:
        raise CommandFailed("--gateway, --tasks, --rows-per-task and --local-on-workers need --on.")
    _check_places(task)
    job = Job(task, options, overwrite=overwrite)
    if dry_run:
        job.check()
        _print_estimate(task, options)
    else:
        run(job)


@app.command("estimate")
def estimate_job(
    source: In,
    endpoint: EndpointName,
    text_field: TextField = "text",
    id_field: IdField = None,
    chunk: Chunk = False,
    input_type: InputType = Texts.DOCUMENT,
    cache: Cache = False,
    rows_per_request: RowsPerRequest = None,
    concurrency: Concurrency = 8,
    price_per_million_tokens: Price = None,
    sample: Annotated[int, Option(help="Approximate number of rows to measure.", min=1)] = SAMPLE_TEXTS,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate a job: rows, requests, tokens, time and cost. The model is not called, and nothing is written."""
    from hubgate.features.bulk.folder import ROWS_PER_REQUEST, RunOptions, Task

    task = Task(
        input=place_of(source),
        output="",
        endpoint=endpoint,
        text_field=text_field,
        id_field=id_field,
        chunk=chunk,
        input_type=input_type,
        rows_per_request=rows_per_request or ROWS_PER_REQUEST,
    )
    options = RunOptions(
        cached=cache, concurrency=concurrency, price_per_million_tokens=price_per_million_tokens
    )
    _check_places(task)
    _print_estimate(task, options, sample_rows=sample, as_json=as_json)


def _check_places(task: Task) -> None:
    """Check that a job of this machine has no URIs.

    Raises:
        CommandFailed: it has.
    """
    if any("://" in place for place in (task.input, task.output)):
        raise CommandFailed("Jobs with files in an object store run on Ray: `hubgate job run … --on ray`.")


def _print_estimate(
    task: Task, options: RunOptions, *, sample_rows: int = SAMPLE_TEXTS, as_json: bool = False
) -> None:
    from hubgate.features.bulk.estimate import print_estimate

    print_estimate(task, options, sample_rows=sample_rows, as_json=as_json)


def _rows_per_request(output: str, *, is_new: bool) -> int:
    """The default, or the number of the job that continues: its shards depend on it."""
    from hubgate.features.bulk.folder import ROWS_PER_REQUEST, JobFolder

    plan = None if is_new else JobFolder(Path(output).absolute()).plan()
    return plan.task.rows_per_request if plan else ROWS_PER_REQUEST


@app.command("resume")
def resume_job(job: JobName) -> None:
    """Continue a job with the options of its last run."""
    from hubgate.features.bulk.job import Job
    from hubgate.features.bulk.local import run

    _refuse_on_ray(job, "resume")
    plan = _find(job).plan()
    assert plan is not None  # noqa: S101 - `find` read it
    run(Job(plan.task, plan.options))


@app.command("load")
def load_output(
    output: Annotated[str, Argument(metavar="OUT", help="The output of a job.")],
    to: Annotated[
        str,
        Option(help="The database: pgvector://, elasticsearch:// or qdrant://…"),
    ],
    table: Annotated[str, Option(help="The table, index or collection.")],
    create: Annotated[bool, Option("--create", help="Create the table if there is none.")] = False,
    similarity: Annotated[
        Similarity | None, Option(help="The similarity of a new table; by default, the endpoint's.")
    ] = None,
    restart: Annotated[bool, Option("--restart", help="Load everything again.")] = False,
) -> None:
    """Load a job's vectors into a vector database. After any interruption, the same command continues."""
    from hubgate.features.bulk.load.command import load

    load(place_of(output), to, table, create=create, similarity=similarity, restart=restart)


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
    from hubgate.features.bulk.job_parts import is_on_ray, show_parts
    from hubgate.features.bulk.progress import summary

    if is_on_ray(job):
        show_parts(place_of(job))
        return
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
    from hubgate.features.bulk.folder import Status

    _refuse_on_ray(job, "cancel")
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
    from hubgate.features.bulk.folder import JobRegistry

    return JobRegistry(Settings.from_env().home)


def _refuse_on_ray(job: str, verb: str) -> None:
    from hubgate.features.bulk.job_parts import is_on_ray, refuse

    if is_on_ray(job):
        refuse(job, verb)


def _find(name: str) -> JobFolder:
    return _registry().find(name)


def files() -> None:
    """Show which keys hold the room for files of batches."""
    reply = api("GET", "/api/files")
    print(
        f"{format_bytes(reply['bytes'])} of {format_bytes(reply['most_bytes'])} are used;"
        f" each key may have {format_bytes(reply['most_bytes_of_key'])}."
    )
    print_table(
        ("key", "files", "size"),
        [(one["key_name"] or one["key"], one["files"], format_bytes(one["bytes"])) for one in reply["keys"]],
    )


COMMANDS = (Command(73, "files", files), Command(80, "job", app))
