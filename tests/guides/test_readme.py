"""The README's snippets run, its routes are served, and its links are valid."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from guide_pages import ROOT, Guide, on_github

if TYPE_CHECKING:
    from running_gateway import RunningGateway

README = Guide("en", (ROOT / "README.md").read_text("utf-8"))
BELOW = {"Elasticsearch": "/_inference", "Hugging Face": "/hf/{endpoint}"}


def test_readme_snippets_print_the_same_vector(local_gateway: RunningGateway) -> None:
    printed = []
    for block in README.blocks:
        assert block.language == "python"
        code = block.text.replace("http://127.0.0.1:8080", local_gateway.url)
        code = code.replace("YOUR_HUBGATE_KEY", local_gateway.admin_key)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        printed.append(json.loads(done.stdout))
    first, *others = printed
    assert len(others) == 2
    assert all(other == pytest.approx(first, abs=1e-6) for other in others)


def test_routes_in_the_readme_table_are_served(gateway: RunningGateway) -> None:
    gateway.add("e5")
    rows = re.findall(
        r"^\| \[(OpenAI|Elasticsearch|Hugging Face)'s\]\(.*?\|(.*)$", README.source, re.MULTILINE
    )
    assert len(rows) == 3
    for face, cells in rows:
        for path in re.findall(r"`(.+?)`", cells):
            whole = BELOW.get(face, "") + path
            whole = whole.replace("{endpoint}", "e5").replace("{id}", "e5")
            assert gateway.request("POST", whole, {}).status not in {404, 405}, whole


def test_readme_links_are_valid() -> None:
    for link in [*README.links, *(path for _, path in README.pictures)]:
        path, _, anchor = link.partition("#")
        assert (ROOT / path).is_file(), link
        titles = re.findall(r"^#+ (.+)$", (ROOT / path).read_text("utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {on_github(title) for title in titles}, link
