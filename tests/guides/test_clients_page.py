"""docs/clients.md: every row names what checks it, and every client script has a row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs" / "clients.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| client")
]


def test_there_are_at_least_40_clients() -> None:
    assert len({row[0] for row in ROWS}) == len(ROWS) >= 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_has_two_lines_and_a_check_that_exists(row: list[str]) -> None:
    _, needed, tasks, checked = (cell.strip(" |") for cell in row)
    assert needed.count("<br>") == 1
    assert set(tasks.split()) <= {"e", "r", "c"}
    if file := re.match(r"`([^`]+)`", checked):
        assert (ROOT / file[1]).exists()
    else:
        assert checked in ("replayed", "read only")


def test_every_client_script_has_a_row() -> None:
    scripts = (path for path in (ROOT / "scripts" / "clients").iterdir() if path.suffix in (".py", ".mjs"))
    named = " ".join(row[-1] for row in ROWS)
    # Those that are no clients of hubgate, and checks of docs/jobs.md and docs/changing-models.md.
    others = {"expected.py", "load_databases.py", "documented_loads.py", "dify_models.py", "dify_move.py"}
    missing = [path.name for path in scripts if path.name not in others and path.name not in named]
    assert missing == []


def test_every_replayed_client_has_a_row() -> None:
    source = (ROOT / "tests" / "clients" / "test_replayed_requests.py").read_text("utf-8")
    applications = {name.split(",")[0] for name in re.findall(r'Replay\(\n +"([^"]+)"', source)}
    listed = {row[0].split(",")[0] for row in ROWS if row[-1].strip(" |") == "replayed"}
    assert applications == listed
