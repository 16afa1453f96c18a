"""The house rules that no linter holds."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from hubgate.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCE = sorted((ROOT / "src").rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_MODULES = 500, 60, 15
MAX_PATCHES_PER_100_TESTS = 5
LARGER_FOLDERS = {  # the number of modules each may have
    "src/hubgate/store/migrations/versions": 100,  # one module for each change of the tables
    "tests/lookalikes": 16,  # one module for each kind of server
}


@pytest.mark.parametrize("path", SOURCE, ids=lambda p: str(p.relative_to(ROOT / "src" / "hubgate")))
def test_files_and_functions_stay_within_their_limits(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, node.name


def test_folders_stay_small_enough_to_read() -> None:
    modules = Counter(
        str(path.parent.relative_to(ROOT))
        for top in ("src", "tests")
        for path in (ROOT / top).rglob("*.py")
        if path.name != "__init__.py"
    )
    too_large = {
        folder: count for folder, count in modules.items() if count > LARGER_FOLDERS.get(folder, MAX_MODULES)
    }
    assert too_large == {}, "divide these folders by what a reader would look for"


def test_tests_patch_little_and_nothing_of_hubgate() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    tests = sum(len(re.findall(r"^ *(?:async )?def test_", text, re.MULTILINE)) for text in texts)
    patches = [
        line
        for text in texts
        for line in text.splitlines()
        if re.search(r"mock\.patch|MagicMock|monkeypatch\.setattr", line)
    ]
    assert len(patches) * 100 <= MAX_PATCHES_PER_100_TESTS * tests
    assert [line for line in patches if "hubgate" in line] == []


def test_a_program_with_a_limit_on_file_sizes_writes_no_bytecode() -> None:
    """A `.pyc` file that the limit truncates makes every later import of its module fail."""
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text("utf-8")
        limits = len(
            re.findall(r"^ *resource\.setrlimit\(resource\.RLIMIT_FSIZE, \((?!resource)", text, re.MULTILINE)
        )
        assert text.count('sys.executable, "-B", "-c"') >= limits, path.name


def test_every_environment_variable_that_is_read_is_documented() -> None:
    source = (ROOT / "src/hubgate/settings.py").read_text("utf-8")
    read = set(re.findall(r'"((?:HUBGATE|HF)_[A-Z_]+)"', source))
    documented = set(
        re.findall(r"`((?:HUBGATE|HF)_[A-Z_]+)`", (ROOT / "docs/settings.md").read_text("utf-8"))
    )
    assert read <= documented
    assert {name for name in documented if name.startswith("HUBGATE_")} == {
        name for name in read if name.startswith("HUBGATE_")
    }
    assert len(fields(Settings)) >= len(read) - 1


def test_every_command_is_documented() -> None:
    from hubgate.cli.main import app

    reference = (ROOT / "docs/commands.md").read_text("utf-8")
    groups = [(group.typer_instance, f"hubgate {group.name}") for group in app.registered_groups]
    for group, prefix in ((app, "hubgate"), *groups):
        assert group is not None
        for command in group.registered_commands:
            assert command.callback is not None
            name = command.name or command.callback.__name__
            assert f"`{prefix} {name}" in reference


def test_each_claim_of_a_faces_contract_page_names_a_test_that_exists() -> None:
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for page in (ROOT / "src/hubgate/web").glob("*/CONTRACT.md"):
        named = re.findall(r"\btest_[a-z0-9_]+\b(?!\.py)", page.read_text("utf-8"))
        assert named, f"{page.name} names no tests"
        missing = [name for name in named if f"def {name}(" not in tests]
        assert missing == [], page.name


def test_no_tracked_file_names_a_registry_or_a_path_of_this_machine() -> None:
    pattern = r"p[y]pi\.org|python[h]osted|n[p]mjs\.|(^|[^A-Za-z0-9_.])/wor[k]/"
    found = subprocess.run(
        ["git", "grep", "-nIE", pattern], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.stdout == ""
