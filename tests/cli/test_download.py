"""`hubgate add NAME --local REPOSITORY`: downloads a model from the configured Hub with a progress line."""

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


def test_model_is_downloaded_with_a_progress_line_in_a_terminal(tmp_path: Path) -> None:
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


def test_no_progress_without_a_terminal_and_no_hub_for_downloaded_models(tmp_path: Path) -> None:
    with running_hub(files()) as hub:
        first = add(tmp_path, hub.url, subprocess.PIPE)
    assert first.returncode == 0, first.stderr
    assert b"Downloading" not in first.stderr
    again = add(
        tmp_path / "other", hub.url, subprocess.PIPE, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "cache")
    )
    assert again.returncode == 0, again.stderr


def test_failed_download_is_reported_once_by_the_gateway(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    refused = add(tmp_path, "http://127.0.0.1:9", its)
    os.close(its)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert refused.returncode == 1
    assert shown.count("could not be downloaded") == 1


def test_progress_line_shows_size_and_total_and_is_written_only_on_change() -> None:
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
