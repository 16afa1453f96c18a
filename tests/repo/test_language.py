"""Users and maintainers read plain technical English: these words must not come back."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
ENGLISH_FILES = (
    *("src", "docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile"),
    *(f":!docs/*.{language}.md" for language in ("zh", "ja", "fa")),
    *(f":!*/locales/*{language}.json" for language in ("zh", "ja", "fa")),
)
QUOTED = (
    "A gate for open models",  # the sample text of the guides
    "The gate keeps every token sealed",  # a text of the self-test: its vector must not change
    '"options": "manner"',  # a field of the job file's format
    "file.tell()",
)


class Rule(NamedTuple):
    words: str
    """A regular expression, matched between characters that are not letters, so in identifiers too."""
    instead: str


RULES = (
    Rule("told|tells?|telling", "reports, returns, describes"),
    Rule("(?<!there )is no (?!longer)[a-z]+", "is not a …"),
    Rule("came about", "happened, was made"),
    Rule("stands? in", "is in, replaces"),
    Rule("anew", "again"),
    Rule("(the|a|one|this|every|each|its|two) gates?", "hubgate, the gateway"),
    Rule("spared?|spares", "saves, avoids, exempt"),
    Rule("(gives?|gave) way", "yields, shrinks"),
    Rule("heeds?", "respects"),
    Rule("to its end", "until it completes"),
    Rule("(models?|endpoints?|tasks?) that writes?", "that generates"),
    Rule("weights of words", "sparse vectors"),
    Rule("whence|thereof|therein|thereby|wherein", "from which, of it, in it"),
    Rule("in peace", "alone"),
    Rule("manner", "way, mode, options"),
    Rule("so many", "this number of"),
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.instead)
def test_english_texts_avoid_words_that_are_not_plain(rule: Rule) -> None:
    found = subprocess.run(
        ["git", "grep", "-nIPi", rf"(?<![a-z])({rule.words})(?![a-z])", "--", *ENGLISH_FILES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in found.stdout.splitlines() if not any(quote in line for quote in QUOTED)]
    assert lines == [], f"write instead: {rule.instead}\n" + "\n".join(lines)
