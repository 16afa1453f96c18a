"""`examples/search.py` on texts of the project's own, with the local model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness import RunningGate

ROOT = Path(__file__).parents[2]
TEXTS = sorted((ROOT / "tests/data/texts").glob("*.md"))


@pytest.mark.parametrize(
    ("question", "paragraph"),
    [
        ("Where do I store my login secrets?", "Passwords are kept"),
        ("How do I get my travel costs refunded?", "Expenses of a journey"),
        ("Whom must I tell when I have a fever and stay at home?", "Whoever is ill"),
        ("What can I do against snails eating my plants?", "Slugs come at night"),
        ("My heap of kitchen waste stinks", "Compost that smells"),
        ("signs of bad weather", "When a storm is on its way"),
        ("cleaning the glass of the lamp", "Every Saturday the great lens"),
    ],
)
def test_a_question_in_other_words_finds_its_paragraph(
    local_gate: RunningGate, question: str, paragraph: str
) -> None:
    found = subprocess.run(
        [sys.executable, ROOT / "examples/search.py", question, *TEXTS],
        env=os.environ | {"HUBGATE_URL": local_gate.url, "HUBGATE_KEY": local_gate.admin_key},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    best, *others = found.stdout.splitlines()
    assert best.split(maxsplit=1)[1].startswith(paragraph)
    assert len(others) == 2
