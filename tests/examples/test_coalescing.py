"""`examples/coalescing.py` with few texts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples/coalescing.py"
TEXTS, AT_BEST = 160, 5


def test_hubgate_answers_all_texts_in_few_requests_and_direct_calls_mostly_fail() -> None:
    played = subprocess.run(
        [sys.executable, EXAMPLE, str(TEXTS)], capture_output=True, text=True, timeout=240, check=False
    )
    assert played.returncode == 0, played.stderr
    rows = {
        label: [int(number) for number in numbers]
        for label, *numbers in re.findall(
            r"^(with\w* hubgate) +(\d+) +(\d+) +(\d+)", played.stdout, re.MULTILINE
        )
    }
    assert rows["without hubgate"] == [60, TEXTS - 60, TEXTS]
    answered, refused, requests = rows["with hubgate"]
    assert (answered, refused) == (TEXTS, 0)
    assert requests <= AT_BEST + 2
