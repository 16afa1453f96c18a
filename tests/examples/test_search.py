"""`examples/search.py` on sample texts of the project, with the local model."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from running_gateway import RunningGateway

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
def test_finds_paragraph_for_paraphrased_question(
    local_gateway: RunningGateway, question: str, paragraph: str
) -> None:
    found = search(local_gateway, question, *TEXTS)
    assert found.returncode == 0
    best, *others = found.stdout.splitlines()
    assert best.split(": ", 1)[1].startswith(paragraph)
    assert len(others) == 2


def test_searches_thousands_of_paragraphs_and_skips_binary_files(
    local_gateway: RunningGateway, tmp_path: Path
) -> None:
    """More paragraphs than fit in one request, and files that are not text."""
    (tmp_path / "deep").mkdir()
    for number in range(300):
        lines = [
            f"The shed of house {number % 20} holds {word}."
            for word in ("a ladder", "two rakes", "old paint")
        ]
        (tmp_path / "deep" / f"{number:03}.txt").write_text(
            "\n\n".join(f"{line} Nobody uses it." for line in lines * 3)
        )
    (tmp_path / "deep" / "packed.gz").write_bytes(gzip.compress(b"text"))
    found = search(local_gateway, "Where is a ladder?", tmp_path)
    assert "2,700 of 2,700 paragraphs" in found.stderr
    assert "Skipped 1 files" in found.stderr
    score, rest = found.stdout.splitlines()[0].split(maxsplit=1)
    assert float(score) > 0.3
    assert rest.startswith(str(tmp_path / "deep"))
    assert "ladder" in rest


def test_errors_are_printed_as_one_line(
    local_gateway: RunningGateway,
) -> None:
    wrong_key = search(local_gateway, "question", *TEXTS, HUBGATE_KEY="hg_wrong")
    unknown_model = search(local_gateway, "question", *TEXTS, HUBGATE_MODEL="nobody")
    nobody_there = search(local_gateway, "question", *TEXTS, HUBGATE_URL="http://127.0.0.1:9")
    nothing_to_search = search(local_gateway, "question", "missing-folder")
    for ran, words in (
        (wrong_key, "key"),
        (unknown_model, "[nobody]"),
        (nobody_there, "make serve"),
        (nothing_to_search, "No paragraph"),
    ):
        assert ran.returncode == 1
        assert words in ran.stderr.splitlines()[-1]
        assert "Traceback" not in ran.stderr


def search(gateway: RunningGateway, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "examples/search.py", *arguments],
        env=os.environ | {"HUBGATE_URL": gateway.url, "HUBGATE_KEY": gateway.admin_key} | env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
