"""Runs a command until it exits, and measures its cost."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Ended(NamedTuple):
    """How a command ended, its children that ended included in its CPU time."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    """Its largest resident memory, shared pages among it; that of its children is not in it."""


def run(command: Sequence[str], *, output: Path, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command; if it fails, stop here with its last words."""
    start = time.monotonic()
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # it is waited for: Popen need not
    seconds = time.monotonic() - start
    if process.returncode:
        words = output.read_text(errors="replace")[-2000:]
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{words}")
    return Ended(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
