"""elastic.md is true as far as a name can tell."""

from __future__ import annotations

import re
from pathlib import Path

import hubgate.web


def test_every_test_that_the_contract_page_names_exists() -> None:
    page = (Path(hubgate.web.__file__).parent / "elastic.md").read_text()
    tests = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_elastic_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert named
    assert named <= set(re.findall(r"def (test_\w+)\(", tests))
