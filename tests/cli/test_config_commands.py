"""`hubgate config export` and `apply`, through a running gateway."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from commands import Command
    from running_gateway import RunningGateway

TOKEN = "hf_" + "t0ken" * 6
FILE = """
connections:
  team: {token: "${MY_TOKEN}"}
endpoints:
  words: {source: fake, rate_limit: {burst: 2}}
keys:
  app: {endpoints: [words]}
"""


def test_file_is_planned_applied_exported_and_applied_again(
    gateway: RunningGateway, hubgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(FILE)
    assert "no value is given for its token ${MY_TOKEN}" in hubgate("config", "apply", str(file)).err
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    planned = hubgate("config", "apply", str(file), "--dry-run")
    assert planned.out.splitlines()[0] == "add connection team"
    assert hubgate("list").rows == []
    applied = hubgate("config", "apply", str(file))
    assert applied.status == 0, applied.err
    key = applied.out.split()[-1]
    assert gateway.request("POST", "/hf/words/embed", {"inputs": "a"}, key=key).status == 200
    assert hubgate("config", "apply", str(file)).out == "Nothing to change.\n"
    exported = hubgate("config", "export").out
    assert TOKEN not in exported
    assert yaml.safe_load(exported)["endpoints"] == {"words": {"source": "fake", "rate_limit": {"burst": 2}}}
    assert set(yaml.safe_load(hubgate("config", "export", "--endpoint", "words").out)) == {
        "version",
        "endpoints",
    }
    file.write_text(exported.replace("burst: 2", "burst: 3"))
    assert hubgate("config", "apply", str(file)).out == "change endpoint words\n    burst: 2 → 3\n"
    file.write_text(exported.replace("endpoints:\n    - words", "bulk: true"))
    scope = hubgate("config", "apply", str(file), "--dry-run").out
    assert "    endpoints: words → none\n" in scope
    assert "    bulk: no → yes\n" in scope
    file.write_text("keys: {}")
    assert hubgate("config", "apply", str(file), "--prune").out == "remove key app\n"


def test_failure_is_reported_with_exit_code_1(
    gateway: RunningGateway, hubgate: Command, tmp_path: Path
) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text("endpoints: {e5: {url: 'http://127.0.0.1:9'}, words: {source: fake}}")
    failed = hubgate("config", "apply", str(file))
    assert failed.status == 1
    assert "    failed: " in failed.out
    assert failed.err == "hubgate: 1 of 2 changes failed.\n"
    assert [row[0] for row in hubgate("list").rows] == ["words"]
    assert "none: No such file" in hubgate("config", "apply", str(tmp_path / "none")).err
    file.write_bytes(b"\xff")
    assert "it is not UTF-8" in hubgate("config", "apply", str(file)).err
    piped = [sys.executable, "-m", "hubgate", "config", "apply", "-"]
    ended = subprocess.run(piped, input=b"\xff", stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (1, b"hubgate: Cannot read -: it is not UTF-8.\n")
