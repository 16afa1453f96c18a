"""Inputs that are not regular files, and folders that cannot be read completely."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from hubgate.features.bulk.engine.rows import Columns, FailedRow, JobStopped
from hubgate.features.bulk.formats.formats import open_source

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet"])
def test_pipe_is_rejected_as_input_without_blocking(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(JobStopped, match=rf"The input \S+{name} is not a regular file\."):
        open_source(tmp_path / name, Columns())


def test_unreachable_file_in_a_folder_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    text, loop = open_source(tmp_path, Columns()).rows()
    assert not isinstance(text, FailedRow)
    assert isinstance(loop, FailedRow)
    assert (loop.id, loop.cause) == ("loop.txt", "unreadable")
    assert "symbolic links" in loop.message


def test_unreadable_part_of_a_folder_is_not_skipped_silently(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with ExitStack() as stack:
        folder = os.open(tmp_path, os.O_RDONLY)
        stack.callback(os.close, folder)
        for _ in range(20):  # deeper than a path can say
            os.mkdir("d" * 250, dir_fd=folder)
            folder = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
            stack.callback(os.close, folder)
        with pytest.raises(JobStopped, match=r"The folder \S+ cannot be read: File name too long\."):
            open_source(tmp_path, Columns())
