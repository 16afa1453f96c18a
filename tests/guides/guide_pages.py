"""Parses the user guide in its four languages: headings, blocks, links and pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LANGUAGES = ("en", "zh", "ja", "fa")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"(?:^<a id=\"(?P<anchor>[\w-]+)\"></a>\n)?^(?P<marks>#+) (?P<text>.+)$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|<(https?://[^>]+)>")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`|<code dir=\"ltr\">([^<]+)</code>")
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str


class Heading(NamedTuple):
    """A heading, with the anchor before it."""

    level: int
    anchor: str | None
    text: str


@dataclass(frozen=True)
class Guide:
    """The guide in one language."""

    language: str
    source: str

    @property
    def blocks(self) -> list[Block]:
        """All fenced blocks, in order."""
        return [Block(*found) for found in _BLOCK.findall(self.source)]

    @property
    def prose(self) -> str:
        """The text outside fenced blocks."""
        return _BLOCK.sub("", self.source)

    @property
    def headings(self) -> list[Heading]:
        """All headings, in order."""
        return [
            Heading(len(found["marks"]), found["anchor"], found["text"])
            for found in _HEADING.finditer(self.prose)
        ]

    @property
    def links(self) -> list[str]:
        """Link targets, except those of the other languages."""
        found = [one or other for one, other in _LINK.findall(self.prose)]
        return [link for link in found if not re.fullmatch(r"guide\.\w+\.md", link)]

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """Alternative text and file of each picture."""
        return _PICTURE.findall(self.prose)

    @property
    def code(self) -> list[str]:
        """Inline code."""
        return [one or other for one, other in _CODE.findall(self.prose)]

    @property
    def bold(self) -> list[str]:
        """Bold text."""
        return _BOLD.findall(self.prose)


@cache
def guide(language: str) -> Guide:
    """The guide in a language."""
    return Guide(language, (DOCS / f"guide.{language}.md").read_text("utf-8"))


def on_github(title: str) -> str:
    """The anchor that GitHub generates for a title."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
