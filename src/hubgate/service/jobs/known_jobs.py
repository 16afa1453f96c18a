"""Which jobs there are: the home of a gate has a note of each, `jobs/{id}`, with the path of its output."""

from __future__ import annotations

import os
from pathlib import Path

from hubgate.domain.errors import Cause
from hubgate.service.jobs.durable import replacing
from hubgate.service.jobs.job import JobFolder
from hubgate.service.jobs.rows import JobStopped


class KnownJobs:
    """The notes that a home keeps of its jobs."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "jobs"

    def add(self, job: JobFolder) -> None:
        """Remember a job."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(self._folder / job.id) as file:
            file.write(os.fsencode(job.output))

    def forget(self, job: JobFolder) -> None:
        """Forget a job."""
        (self._folder / job.id).unlink(missing_ok=True)

    def list(self) -> list[JobFolder]:
        """Those whose folders are still there, the oldest first."""
        noted = self._folder.glob("[0-9a-f]*") if self._folder.is_dir() else ()
        jobs = [JobFolder(Path(os.fsdecode(note.read_bytes()))) for note in noted]
        plans = [(plan.created_at, job.id, job) for job in jobs if (plan := job.plan()) is not None]
        return [job for *_, job in sorted(plans, key=lambda one: one[:2])]

    def find(self, name: str) -> JobFolder:
        """A job by its id, or by the path of its output.

        Raises:
            JobStopped: there is none.
        """
        job = next((job for job in self.list() if job.id == name), None) or JobFolder(Path(name).absolute())
        if job.plan() is None:
            raise JobStopped(
                f"There is no job [{name[:200]}].",
                remedy="`hubgate job list` shows them.",
                cause=Cause.NOT_FOUND,
            )
        return job
