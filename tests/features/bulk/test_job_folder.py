"""The folder of a job, its lock, and the jobs of a home."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from hubgate.features.bulk.engine.rows import JobStopped
from hubgate.features.bulk.folder import JobFolder, JobRegistry, Plan, RunOptions, Task

if TYPE_CHECKING:
    from pathlib import Path


def begun(output: Path) -> JobFolder:
    job = JobFolder(output)
    task = Task(input="in.jsonl", output=str(output), endpoint="words")
    with job.locked():
        job.write_plan(Plan(task=task, options=RunOptions(), input={}, model={}, created_at=1.0))
    return job


def test_unreadable_job_does_not_hide_others(tmp_path: Path) -> None:
    known = JobRegistry(tmp_path / "home")
    damaged, sound = begun(tmp_path / "damaged.jsonl"), begun(tmp_path / "sound.jsonl")
    known.add(damaged)
    known.add(sound)
    (damaged.path / "job.json").write_text("{}")
    assert [job.id for job in known.list()] == [sound.id]
    assert known.find(sound.id).output == sound.output
    assert known.find(str(sound.output)).id == sound.id
    for name in (damaged.id, str(damaged.output)):
        with pytest.raises(JobStopped, match=r"damaged\.jsonl\.job/job\.json cannot be read"):
            known.find(name)


def test_shared_lock_of_a_status_check_does_not_block_the_worker(tmp_path: Path) -> None:
    job = begun(tmp_path / "out.jsonl")
    looking = os.open(job.path / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    with job.locked(sleep=lambda _: os.close(looking)):
        assert job.worker() == os.getpid()


def test_job_whose_process_id_is_not_written_yet_has_no_worker(tmp_path: Path) -> None:
    job = begun(tmp_path / "out.jsonl")
    just_begun = os.open(job.path / "lock", os.O_RDWR)
    fcntl.flock(just_begun, fcntl.LOCK_EX)
    os.ftruncate(just_begun, 0)
    assert job.worker() is None
    pauses: list[float] = []
    with pytest.raises(JobStopped, match="Another process is working"), job.locked(sleep=pauses.append):
        pass
    assert pauses
    os.close(just_begun)
