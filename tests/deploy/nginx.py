"""Runs Debian's nginx with the shipped configuration, in front of gateways of this machine."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from postgres.server import free_port
from running_gateway import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "deploy" / "nginx" / "nginx.conf"


@contextmanager
def nginx_before(urls: Sequence[str], folder: Path) -> Iterator[str]:
    """The URL of a running nginx. Only addresses and paths differ from the shipped configuration."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    text = CONFIGURATION.read_text("utf-8")
    assert len(re.findall(r"server gateway-\d:8080", text)) == len(urls)
    for number, url in enumerate(urls, 1):
        text = text.replace(f"gateway-{number}:8080", url.removeprefix("http://"))
    port = free_port()
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};")
    text = re.sub(r" /tmp/", f" {folder}/", text)
    text = text.replace("worker_processes auto;", "worker_processes 2;")
    configuration, log = folder / "nginx.conf", folder / "error.log"
    configuration.write_text(text, "utf-8")
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [program, "-p", folder, "-c", configuration, "-g", "daemon off;", "-e", "stderr"], stderr=errors
        )
    try:
        eventually(lambda: (folder / "nginx.pid").exists() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(240)
