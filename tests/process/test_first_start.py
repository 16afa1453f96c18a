"""The output of the first `hubgate serve` and of the second."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from gateway_process import GatewayProcess, Home

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "all-minilm-l6-v2"


def test_first_start_prints_a_key_and_a_command_and_the_second_prints_neither(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    with home.serve() as gateway:
        assert gateway.request("GET", "/healthz").status == 200
        loading = gateway.request("GET", "/readyz")
        assert (loading.status, loading.json()) == (503, {"status": "starting", "unready_endpoints": 1})
        admin_key = gateway.wait_for(r"hg_[0-9a-f]{8}_\S+")[0]
        line = gateway.wait_for(r"curl .*}'\n")[0].strip()
        ready = gateway.request("GET", "/readyz")
        assert (ready.status, ready.json()) == (200, {"status": "ready"})
        assert len(json.loads(pasted(line, gateway))["data"][0]["embedding"]) == 384
        assert gateway.output.count(f"    {admin_key}\n") == 1
        metrics = gateway.request("GET", "/metrics", key=admin_key).body.decode()
        asked = 'cause="ok",endpoint="all-minilm-l6-v2",face="openai"'
        assert f"hubgate_requests_total{{{asked}}} 1.0" in metrics
        assert gateway.request("GET", "/metrics").status == 401
        key = home.run("key", "create", "app").out.strip()
        gateway.signal(signal.SIGINT)
        assert gateway.wait() == 0
        assert "hubgate has stopped." in gateway.output
        assert not gateway.traceback, gateway.traceback
    with home.serve() as gateway:
        gateway.wait_for(f"Endpoints: {MODEL}\n")
        assert "hg_" not in gateway.output
        assert "curl" not in gateway.output
        assert gateway.embed(MODEL, "again", key=key).status == 200
        assert gateway.request("GET", "/api/keys", key=admin_key).status == 200
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0


def pasted(line: str, gateway: GatewayProcess) -> str:
    """What the line prints in a shell; where there is no curl, what it asks is asked otherwise."""
    if shutil.which("curl"):
        return subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, timeout=240, check=True
        ).stdout
    _, _, url, _, key, _, _, _, body = shlex.split(line)
    assert url.startswith(gateway.url)
    reply = gateway.request(
        "POST",
        url.removeprefix(gateway.url),
        json.loads(body),
        key=key.removeprefix("Authorization: Bearer "),
    )
    return reply.body.decode()
