"""The unit for systemd, checked by systemd-analyze. It was never started: that needs a machine that systemd runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "hubgate.service"
MAX_EXPOSURE = 3.0


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists on this machine."""
    text = UNIT.read_text("utf-8")
    assert "/opt/hubgate/bin/hubgate" in text
    unit = tmp_path / "hubgate.service"
    unit.write_text(text.replace("/opt/hubgate/bin/hubgate", sys.executable), "utf-8")
    return unit


def test_unit_is_valid(unit: Path) -> None:
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stderr) == (0, "")


def test_unit_is_well_protected(unit: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={round(MAX_EXPOSURE * 10)}", str(unit))
    assert done.returncode == 0, done.stdout + done.stderr
