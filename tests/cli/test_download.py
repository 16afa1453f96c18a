"""`hubgate add NAME --local REPOSITORY`: downloaded with a progress line, whole and from the Hub that is set."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

from lookalikes.hub import running_hub

from hubgate.cli.endpoints import progress

TINY = Path(__file__).parents[1] / "data" / "tiny_models" / "mpnet"


def files() -> dict[str, bytes]:
    return {str(path.relative_to(TINY)): path.read_bytes() for path in TINY.rglob("*") if path.is_file()}


def add(folder: Path, hub: str, stderr: int, **settings: str) -> subprocess.CompletedProcess[bytes]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HUBGATE_", "HF_", "HTTP"))
    }
    environment = kept | {
        "HUBGATE_HOME": str(folder / "home"),
        "HUBGATE_SECRET_KEY_FILE": str(folder / "config" / "secret.key"),
        "HF_HUB_CACHE": str(folder / "cache"),
        "HF_ENDPOINT": hub,
    }
    command = [sys.executable, "-m", "hubgate", "add", "tiny", "--local", "open/mpnet"]
    return subprocess.run(
        command, env=environment | settings, stdout=subprocess.PIPE, stderr=stderr, check=False
    )


def test_in_a_terminal_a_model_is_downloaded_with_a_progress_line_and_then_registered(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    with running_hub(files()) as hub:
        added = add(tmp_path, hub.url, its)
    os.close(its)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert added.returncode == 0, shown
    assert "Downloading open/mpnet: 0.1 of 0.1 MB (100 %)" in shown
    assert "open/mpnet" in added.stdout.decode()
    assert "16 dimensions" in added.stdout.decode()


def test_elsewhere_nothing_is_drawn_and_what_was_downloaded_needs_no_hub(tmp_path: Path) -> None:
    with running_hub(files()) as hub:
        first = add(tmp_path, hub.url, subprocess.PIPE)
    assert first.returncode == 0, first.stderr
    assert b"Downloading" not in first.stderr
    again = add(
        tmp_path / "other", hub.url, subprocess.PIPE, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "cache")
    )
    assert again.returncode == 0, again.stderr


def test_what_cannot_be_downloaded_is_told_once_and_by_the_gateway(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    refused = add(tmp_path, "http://127.0.0.1:9", its)
    os.close(its)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert refused.returncode == 1
    assert shown.count("could not be downloaded") == 1


def test_the_line_says_how_much_of_how_much_is_here_and_no_more_often_than_it_changes() -> None:
    out = io.StringIO()
    told = progress("a/b", out)
    told(0, 0)
    told(1_000_000, 4_000_000)
    told(1_000_001, 4_000_000)
    told(4_000_000, 4_000_000)
    assert out.getvalue().split("\r\x1b[K")[1:] == [
        "Downloading a/b: 0.0 of 0.0 MB",
        "Downloading a/b: 1.0 of 4.0 MB (25 %)",
        "Downloading a/b: 4.0 of 4.0 MB (100 %)",
    ]
