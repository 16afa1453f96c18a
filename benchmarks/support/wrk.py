"""Closed-loop load: wrk."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.machine import program

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECTIONS = 64
_SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """What one run did. A run in which anything failed is no measurement, so there are no errors here."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


def drive(url: str, headers: Mapping[str, str], body: Path, seconds: int) -> Load:
    """POST the body for some seconds over 64 kept connections, as fast as it is answered."""
    named = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    command = [program("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s"]
    told = subprocess.run(
        [*command, *named, "-s", str(_SCRIPT), url, "--", str(body)],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    ).stdout
    figures = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
    if figures.pop("refused") or figures.pop("broken"):
        raise SystemExit(f"{url} failed under load:\n{told}")
    return Load(**figures)
