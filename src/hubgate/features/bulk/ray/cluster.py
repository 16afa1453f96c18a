"""Runs a job on a Ray cluster. The only module that imports Ray: the extra `[ray]`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.metadata
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec
import ray
from ray.exceptions import RayError

from hubgate import __version__
from hubgate.domain.errors import Cause, HubgateError
from hubgate.features.bulk.engine.manifest import Totals
from hubgate.features.bulk.engine.retries import RetryingEmbedder
from hubgate.features.bulk.engine.rows import Embedder, JobStopped
from hubgate.features.bulk.engine.runner import Progress, check_model
from hubgate.features.bulk.folder import Task
from hubgate.features.bulk.ray.splits import Split
from hubgate.features.bulk.ray.storage import first_line
from hubgate.features.bulk.ray.tasks import Report, Work, embed_split, finish, prepare

T = TypeVar("T")
OpenEmbedder: TypeAlias = Callable[[int], AbstractAsyncContextManager[Embedder]]
"""Called in a task, with the number of processors that the task may use."""
ANY_CLUSTER = "ray"
_MAX_RETRIES = 8
"""Of a task whose node or process dies."""
_WAITING_CPUS = 0.1
"""A task that asks a gateway waits most of the time."""
_TASKS_PER_NODE = 2
_OWN_STORE_BYTES = 128 * 1024 * 1024
"""Texts and vectors do not travel through Ray."""
_POLL_SECONDS, _REPORT_SECONDS = 0.5, 0.5
_CONNECT_ATTEMPTS, _CONNECT_PAUSE_SECONDS = 4, 3.0
_NOT_STARTED = "Initialization failure"
"""Says Ray when its client's server started no process for this job within 30 seconds, as on a busy head node."""


@dataclass(frozen=True, kw_only=True)
class RayJob:
    """A job to start or to continue.

    Args:
        task: what to do. Its input and output are URIs or paths that all nodes can read.
        open_embedder: pickled, and called in each task.
        concurrency: requests in flight of each task.
        rows_per_task: `None`: the default, or that of the earlier runs.
        tasks: at once; `None`: depends on the cluster.
        computes: whether the tasks run the model themselves.
        overwrite: start over.
    """

    task: Task
    open_embedder: OpenEmbedder
    concurrency: int
    rows_per_task: int | None = None
    tasks: int | None = None
    computes: bool = False
    overwrite: bool = False


class Outcome(NamedTuple):
    """What a run of a job came to."""

    totals: Totals
    was_done: bool


class Monitor:
    """An actor that knows how far the running splits are. Nothing depends on it but what is shown."""

    def __init__(self) -> None:
        self._reports: dict[int, Report] = {}

    def report(self, split: int, report: Report) -> None:
        self._reports[split] = report

    def read(self, ended: Sequence[int]) -> dict[int, Report]:
        """The last report of each split, without those that have ended."""
        for split in ended:
            self._reports.pop(split, None)
        return self._reports


@contextmanager
def connected(on: str, on_retry: Callable[[str], None]) -> Iterator[None]:
    """Be connected to a cluster.

    Args:
        on: `ray://HOST:PORT`, or `ray` for the cluster of RAY_ADDRESS or this machine, or a new one.
        on_retry: called with the reason before another attempt.

    Raises:
        JobStopped: it cannot be reached, or cannot run hubgate's tasks.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _connect(on, on_retry)
    except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise _unreachable(on, error) from error
    try:
        _check_version()
        yield
    finally:
        ray.shutdown()  # also ends this job's tasks


def _connect(on: str, on_retry: Callable[[str], None]) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if on != ANY_CLUSTER:
        for attempt in count(1):
            try:
                ray.init(on, **options)
            except ConnectionAbortedError as error:
                if attempt == _CONNECT_ATTEMPTS or _NOT_STARTED not in str(error):
                    raise
                on_retry(
                    f"Ray's client server at {on} could not start a server for this job."
                    f" Trying again (attempt {attempt + 1} of {_CONNECT_ATTEMPTS}) …"
                )
                time.sleep(_CONNECT_PAUSE_SECONDS)
            else:
                return
    try:
        ray.init("auto", **options)
    except ConnectionError:
        if os.environ.get("RAY_ADDRESS"):
            raise
        ray.init("local", include_dashboard=False, object_store_memory=_OWN_STORE_BYTES, **options)


def _unreachable(on: str, error: Exception) -> JobStopped:
    text = " ".join(str(error).split())
    if "ersion" in text and "Python" in text:
        return JobStopped(
            f"The cluster at {on} runs another version of Ray or Python: {text[:400]}",
            remedy=f"Install Ray {ray.__version__} on its nodes, or the cluster's version here; Python must have the same minor version.",
            cause=Cause.INVALID_REQUEST,
        )
    if _NOT_STARTED in text:
        return JobStopped(
            f"Ray's client server at {on} could not start a server for this job in {_CONNECT_ATTEMPTS} attempts: {str(error).strip().rpartition(chr(10))[2][:300]}",
            remedy="Run the same command again. If the head node is slow, set RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S there to more than 30.",
            cause=Cause.UPSTREAM_FAILED,
        )
    return JobStopped(
        f"There is no Ray cluster at {on}: {first_line(error)}.",
        remedy="Use the address of Ray's client server (ray://HOST:10001), or --on ray for a cluster on this machine.",
        cause=Cause.INVALID_REQUEST,
    )


def _check_version() -> None:
    """Check that a node has this version of hubgate.

    Raises:
        JobStopped: it has not.
    """
    found: str | None
    try:  # a function of the standard library, as one of hubgate's could not be found there
        found = ray.get(ray.remote(num_cpus=0)(importlib.metadata.version).remote("hubgate"))
    except RayError as error:
        found = None if "PackageNotFoundError" in str(error) else f"unknown ({first_line(error)})"
    here = importlib.metadata.version("hubgate")
    if found != here:
        what = "is not installed" if found is None else f"has the version {found}"
        raise JobStopped(
            f"hubgate {what} on the nodes of the cluster, and {__version__} here.",
            remedy=f"Install hubgate[ray]=={here} on all nodes.",
            cause=Cause.INVALID_REQUEST,
        )


def addresses() -> set[str]:
    """The addresses of the cluster's nodes."""
    return {node["NodeManagerAddress"] for node in _nodes()}


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()
    return [node for node in nodes if node["Alive"]]


class _Stopped(NamedTuple):
    """A `HubgateError` on its way back from a task."""

    message: str
    remedy: str
    cause: str


def _attempt(function: Callable[..., T], *arguments: Any, **options: Any) -> T | _Stopped:
    """Run a function on the cluster. An exception would be pickled, which loses what hubgate's say."""
    try:
        return function(*arguments, **options)
    except HubgateError as error:
        return _Stopped(error.message, error.remedy, error.cause)


def _embed(
    work: Work, open_embedder: OpenEmbedder, monitor: Any, *, concurrency: int, cpus: int, computes: bool
) -> Totals:
    """The task of a split."""
    reported_at = 0.0

    def report(report: Report) -> None:
        nonlocal reported_at
        now = time.monotonic()
        if report.waiting_for is not None or now - reported_at > _REPORT_SECONDS:
            reported_at = now
            monitor.report.remote(work.split.first, report)

    async def embed() -> Totals:
        async with open_embedder(cpus) as embedder:
            if computes:
                check_model(work.model, await embedder.model())
            return await embed_split(work, embedder, concurrency=concurrency, report=report)

    return asyncio.run(embed())


@dataclass
class ClusterRun:
    """One run of a job on the cluster that this process is connected to."""

    job: RayJob
    progress: Progress
    _done: Totals = field(default_factory=Totals, init=False)
    """Of the parts that exist."""
    _running: dict[Any, Split] = field(default_factory=dict, init=False)
    _ended: list[int] = field(default_factory=list, init=False)
    """Splits of which the monitor does not know yet that they ended."""

    async def run(self, model: RetryingEmbedder) -> Outcome:
        """Make the parts that are missing. After an interruption, another run continues.

        Args:
            model: asked for the facts of the model before and after.

        Raises:
            JobStopped: the job cannot continue.
        """
        job = self.job
        facts = await model.model()
        prepared = await self._call(prepare, job.task, facts, job.rows_per_task, overwrite=job.overwrite)
        if prepared.is_complete:
            return Outcome(prepared.done, was_done=True)
        plan = prepared.plan
        self._done = prepared.done
        self.progress.totals, self.progress.expected_rows = prepared.done, plan.rows
        await self._embed_all([plan.work(split) for split in prepared.missing])
        check_model(plan.model, await model.model())
        self.progress.is_writing_output = True
        return Outcome(await self._call(finish, plan), was_done=False)

    async def _call(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Run a function on the cluster, and wait for it."""
        remote = ray.remote(num_cpus=_WAITING_CPUS, max_retries=_MAX_RETRIES)(_attempt)
        reference = remote.remote(function, *arguments, **options)
        result: T = await _in_thread(_result, reference)
        return result

    async def _embed_all(self, waiting: Sequence[Work]) -> None:
        nodes = [cpus for node in _nodes() if (cpus := node["Resources"].get("CPU", 0.0)) > 0] or [1.0]
        cpus = max(1, int(min(nodes))) if self.job.computes else _WAITING_CPUS
        default = (
            sum(max(1, int(of_node // cpus)) for of_node in nodes)
            if self.job.computes
            else _TASKS_PER_NODE * len(nodes)
        )
        remote = ray.remote(num_cpus=cpus, max_retries=_MAX_RETRIES, scheduling_strategy="SPREAD")(_attempt)
        monitor = ray.remote(num_cpus=0, max_restarts=-1)(Monitor).remote()
        left = deque(waiting)
        while left or self._running:
            while left and len(self._running) < (self.job.tasks or default):
                work = left.popleft()
                reference = remote.remote(
                    _embed,
                    work,
                    self.job.open_embedder,
                    monitor,
                    concurrency=self.job.concurrency,
                    cpus=int(cpus),
                    computes=self.job.computes,
                )
                self._running[reference] = work.split
            await self._follow(monitor)

    async def _follow(self, monitor: Any) -> None:
        """Wait for a moment or the end of a task, and update the progress."""
        wait = functools.partial(ray.wait, num_returns=1, timeout=_POLL_SECONDS)
        ready, _ = await _in_thread(wait, list(self._running))
        for reference in ready:
            totals = await _in_thread(_result, reference)
            self._done.include(totals)
            self._ended.append(self._running.pop(reference).first)
        reports: Mapping[int, Report] = {}
        with contextlib.suppress(RayError):  # while it starts again on another node
            reports = await _in_thread(ray.get, monitor.read.remote(self._ended))
            self._ended.clear()
        totals = msgspec.structs.replace(self._done)
        for report in reports.values():
            totals.include(report.totals)
        self.progress.update(totals)
        reasons = [report.waiting_for for report in reports.values()]
        self.progress.waiting_for = reasons[0] if all(reasons) and reasons else None


def _result(reference: Any) -> Any:
    """What a task returned.

    Raises:
        JobStopped: it could not continue, or died too often.
    """
    try:
        result = ray.get(reference)
    except (RayError, ConnectionError) as error:
        raise JobStopped(
            f"A Ray task failed: {first_line(error)}.",
            remedy="Run the same command again: finished parts are kept. Ray's dashboard and logs say more.",
            cause=Cause.INTERNAL,
        ) from error
    if isinstance(result, _Stopped):
        raise JobStopped(result.message, remedy=result.remedy, cause=Cause(result.cause))
    return result


async def _in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function of Ray's that blocks. If the caller is cancelled, the thread ends first."""
    call = asyncio.get_running_loop().run_in_executor(None, functools.partial(function, *arguments))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait({call}, timeout=2 * _POLL_SECONDS)
        raise
