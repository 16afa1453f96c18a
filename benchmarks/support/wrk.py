"""Closed-loop load: wrk."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from support.machine import program

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECTIONS, FEW_CONNECTIONS = 64, 8
"""Few for what is slow: requests that the end of a run cuts off cost CPU time and are not counted."""
NEW = "@" * 9
"""In a body: a number that no other request has."""
_MOST_REQUESTS = 1_000_000
_runs = count()
_SCRIPT = Path(__file__).with_name("load.lua")


class FailedLoad(SystemExit):
    """Requests of a run were refused or broken: it measures nothing. Ends a benchmark that does not expect it."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run did. A run in which anything failed is no measurement, so there are no errors here."""

    requests: int
    bytes: int
    """Of all replies, their heads included."""
    seconds: float
    p50_ms: float
    p99_ms: float


def drive(url: str, headers: Mapping[str, str], body: Path, seconds: int, connections: int) -> Load:
    """POST the body for some seconds over kept connections, as fast as it is answered; see `NEW`."""
    first = next(_runs) * _MOST_REQUESTS
    named = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    command = [program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    told = subprocess.run(
        [*command, *named, "-s", str(_SCRIPT), url, "--", str(body), str(first)],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    ).stdout
    figures = json.loads(next(line for line in told.splitlines() if line.startswith("{")))
    if figures.pop("refused") or figures.pop("broken"):
        raise FailedLoad(f"{url} failed under load:\n{told}")
    if not figures["requests"]:
        raise FailedLoad(f"{url} answered nothing within {seconds} s")
    return Load(**figures)
