"""Which jobs there are: the home of a gate has a note of each, `jobs/{id}`, with the path of its output."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hubgate.domain.errors import Cause
from hubgate.files import atomic_write
from hubgate.jobs.folder import JobFolder
from hubgate.jobs.rows import JobStopped


class KnownJobs:
    """The notes that a home keeps of its jobs."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "jobs"

    def add(self, job: JobFolder) -> None:
        """Remember a job."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_write(self._folder / job.id) as file:
            file.write(os.fsencode(job.output))

    def forget(self, job: JobFolder) -> None:
        """Forget a job."""
        (self._folder / job.id).unlink(missing_ok=True)

    def list(self) -> list[JobFolder]:
        """Those whose folders are still there and can be read, the oldest first."""
        plans = []
        for job in self._noted():
            with contextlib.suppress(JobStopped):  # who asks for it by name is told why it cannot be read
                if (plan := job.plan()) is not None:
                    plans.append((plan.created_at, job.id, job))
        return [job for *_, job in sorted(plans, key=lambda one: one[:2])]

    def find(self, name: str) -> JobFolder:
        """A job by its id, or by the path of its output.

        Raises:
            JobStopped: there is none, or it cannot be read.
        """
        job = next((job for job in self._noted() if job.id == name), None) or JobFolder(Path(name).absolute())
        if job.plan() is None:
            raise JobStopped(
                f"There is no job [{name[:200]}].",
                remedy="`hubgate job list` shows them.",
                cause=Cause.NOT_FOUND,
            )
        return job

    def _noted(self) -> Iterator[JobFolder]:
        for note in self._folder.glob("[0-9a-f]*") if self._folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # it was just forgotten
                yield JobFolder(Path(os.fsdecode(note.read_bytes())))
