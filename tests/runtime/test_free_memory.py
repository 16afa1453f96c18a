"""How much memory a worker may still allocate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hubgate.runtime.machine import available_memory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("limit", "free"), [(None, 8 * 2**30), ("max", 8 * 2**30), ("3221225472", 2**31), ("1000", 0)]
)
def test_free_memory_is_that_of_the_machine_or_of_its_container(
    tmp_path: Path, limit: str | None, free: int
) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("1073741824\n")
    assert available_memory(info, tmp_path) == free


def test_free_memory_is_unknown_where_the_system_does_not_say(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "nothing", tmp_path) is None
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\n")
    assert available_memory(tmp_path / "meminfo", tmp_path) is None
