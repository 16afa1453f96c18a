"""Ray Data, the peer of bulk jobs: installed into an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VERSION = "2.60.0"
ENVIRONMENT = Path(__file__).parents[2] / "build" / "bench" / f"ray-{VERSION}"
PYTHON = ENVIRONMENT / "bin" / "python"
PROGRAM = Path(__file__).with_name("bulk_ray.py")
SILENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
"""It reports to an analytics host unless it is told not to."""


def install() -> None:
    """Install it once; it stays under build/ for the next time."""
    if (ENVIRONMENT / "complete").exists():
        return
    print(f"Installing ray[data] {VERSION} (once, a minute) …", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(ENVIRONMENT)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "-qq"]
    subprocess.run([*pip, f"ray[data]=={VERSION}"], check=True)
    (ENVIRONMENT / "complete").touch()
