"""The crash test of benchmarks/bulk_kills.py, with few kills."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "bulk_kills.py"


def test_output_is_identical_when_job_and_gateway_are_killed_at_random() -> None:
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), "--kills", "4", "--rows", "2000", "--seed", "3"],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    killed = re.search(r"(\d+) kills", ran.stdout)
    assert killed is not None
    assert int(killed[1]) >= 2  # the last one may find the job done
    assert "the same file, row by row" in ran.stdout
