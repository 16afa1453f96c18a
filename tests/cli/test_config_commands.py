"""`hubgate config export` and `apply`, through a running gateway."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Command
    from running_gateway import RunningGateway

    from hubgate.settings import Settings

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
    assert "MY_TOKEN would be sent to huggingface, or the hosts that connection 'team' has." in planned.err
    applied = hubgate("config", "apply", str(file), "--allow-env", "MY_TOKEN")
    assert applied.status == 0, applied.err
    key = applied.out.split()[-1]
    assert gateway.request("POST", "/hf/words/embed", {"inputs": "a"}, key=key).status == 200
    again = hubgate("config", "apply", str(file), "--allow-env", "MY_TOKEN")
    assert again.out == "Nothing to change.\n"
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


EVIL = """
connections:
  team: {token: "${HUBGATE_SECRET}", hosts: ["http://127.0.0.1:9", "*.example.com"]}
  hub: {token: "${MY_TOKEN}"}
endpoints:
  one: {url: "http://user@[::1]:8/v1", token: "${AWS_SECRET}", enabled: false}
  two: {urls: ["https://a.example:443", "https://a.example/b"], proxy: "http://p.example:3128", token: "${AWS_SECRET}"}
  three: {model: org/model, source: router, token: "${MY_TOKEN}"}
# ${OTHER} ${UNSET}
"""
HOSTS = {
    "AWS_SECRET": "http://[::1]:8 and https://a.example and http://p.example:3128",
    "HUBGATE_SECRET": "http://127.0.0.1:9 and https://*.example.com",
    "MY_TOKEN": "huggingface, or the hosts that connection 'hub' has and huggingface",
}


def test_no_variable_is_sent_that_the_operator_did_not_name(
    gateway: RunningGateway, hubgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text(EVIL)
    for name in (*HOSTS, "OTHER"):
        monkeypatch.setenv(name, TOKEN)
    refused = hubgate("config", "apply", str(file))
    assert refused.status == 1
    sent = "; ".join(f"{name} to {HOSTS[name]}" for name in ("HUBGATE_SECRET", "MY_TOKEN", "AWS_SECRET"))
    assert refused.err == (
        f"hubgate: The file sends environment variables: {sent}. To allow that, add: "
        "--allow-env HUBGATE_SECRET --allow-env MY_TOKEN --allow-env AWS_SECRET\n"
    )
    partly = hubgate("config", "apply", str(file), "--allow-env", "MY_TOKEN", "--allow-env", "HUBGATE_SECRET")
    assert f"hubgate: AWS_SECRET is not used. It would be sent to {HOSTS['AWS_SECRET']}." in partly.err
    assert "no value is given for its token ${AWS_SECRET}" in partly.err
    assert gateway.service.connections.by_name == {}


def test_hosts_are_shown_without_control_characters(
    gateway: RunningGateway, hubgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    file = tmp_path / "odd.yaml"
    file.write_text(
        'connections: {"a\\e[2K": {token: "${MY_TOKEN}"}, b: {token: "${MY_TOKEN}", hosts: ["\\e[1A"]}}\n'
        'endpoints: {e: {url: "http://\\rhuggingface.co", token: "${MY_TOKEN}", unknown: ["http://x.example"]}}\n'
    )
    refused = hubgate("config", "apply", str(file)).err
    assert refused.strip().isprintable()
    assert "http://x.example" in refused


@pytest.mark.parametrize(("answer", "added"), [(b"y\n", ["team"]), (b"\n", []), (b"n\n", [])])
def test_a_terminal_is_asked(
    gateway: RunningGateway, settings: Settings, tmp_path: Path, answer: bytes, added: list[str]
) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(FILE)
    own, terminal = pty.openpty()
    os.write(own, answer)
    ended = subprocess.run(
        [sys.executable, "-m", "hubgate", "config", "apply", str(file)],
        stdin=terminal,
        capture_output=True,
        env={**os.environ, "HUBGATE_HOME": str(settings.home), "MY_TOKEN": TOKEN},
        check=False,
        text=True,
    )
    os.close(own)
    os.close(terminal)
    assert "    MY_TOKEN to huggingface, or the hosts that connection 'team' has\n" in ended.stderr
    assert list(gateway.service.connections.by_name) == added
    assert ended.returncode == (0 if added else 1), ended.stderr


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
