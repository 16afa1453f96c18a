"""The environment of the guide's reader: a checkout, a Hugging Face account with endpoints, and a shell.

Hugging Face and the servers are look-alikes on loopback. The gateway is the one that the guide's `make serve` starts.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from guide_pages import ROOT
from lookalikes import lookalike
from lookalikes.deployments import DeploymentsApi, deployment
from lookalikes.hub_api import MANAGER_TOKEN, WHOAMI, HubApi
from lookalikes.model import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lookalikes.site import Seen

TOKEN = "hf_MadeUpForTheGuide"
HOSTED, EMBEDDER, RERANKER = "Qwen/Qwen3-8B", "intfloat/e5-small-v2", "BAAI/bge-reranker-v2-m3"
GATE = "http://127.0.0.1:8080"
_STARTS_WITHIN = 240.0


class GuideHub(HubApi):
    """A Hub with the guide's model as its only hosted one, and whose token may do everything."""

    def reply(self, seen: Seen) -> Answer:
        """The model's page, or the reply of any look-alike of the Hub."""
        if seen.token == TOKEN and seen.path == "/api/whoami-v2":
            return Answer(200, WHOAMI[MANAGER_TOKEN] | {"name": "YOUR_NAME"})
        if seen.token == TOKEN:
            seen = replace(seen, token=MANAGER_TOKEN)
        if seen.path != f"/api/models/{HOSTED}":
            return super().reply(seen)
        serving = {"provider": "together", "task": "conversational", "status": "live", "providerId": HOSTED}
        return Answer(200, {"id": HOSTED, "sha": "c" * 40, "inferenceProviderMapping": [serving]})


@dataclass
class World:
    """A reader's machine, and the values of the guide's placeholders."""

    folder: Path
    env: dict[str, str]
    written: dict[str, str] = field(default_factory=dict)

    def run(self, block: str) -> str:
        """Run a block in a shell and return its output; exported variables persist."""
        script = f"set -euo pipefail\ntouch state && . ./state\n{self.filled(block)}\nexport -p > state\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def filled(self, text: str) -> str:
        """A block with its placeholders replaced."""
        for placeholder, real in self.written.items():
            text = text.replace(placeholder, real)
        return text

    @contextmanager
    def serving(self, command: str) -> Iterator[str]:
        """Run the gateway with its start command; yields its output until it is ready."""
        words = command.split()
        # What is installed is not installed again.
        process = subprocess.Popen(
            [words[0], "-o", ".venv/serve.stamp", *words[1:]],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        guard = threading.Timer(_STARTS_WITHIN, process.kill)
        guard.start()
        output = ""
        for line in process.stdout:
            output += line
            if line.lstrip().startswith("curl "):
                break
        guard.cancel()
        rest = threading.Thread(target=process.stdout.read)
        rest.start()
        try:
            found = re.search(r"serves on (http://[^\s,]+)", output)
            assert found, output
            self.written[GATE] = found[1]
            yield output
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(240)
            rest.join()
            process.stdout.close()


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Hugging Face, three Inference Endpoints, and a fresh checkout."""
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "Makefile").symlink_to(ROOT / "Makefile")
    # An Inference Endpoint starts in a second.
    hub, deployments = GuideHub(), DeploymentsApi(lambda: time.monotonic() * 100)
    with ExitStack() as running:
        for site in (hub, deployments):
            running.enter_context(site.running())
        router = running.enter_context(lookalike("router", name=HOSTED, kind="llm", key=TOKEN))
        embedder = running.enter_context(lookalike("tei", name=EMBEDDER, key=TOKEN))
        ranker = running.enter_context(lookalike("tei", name=RERANKER, kind="reranker", key=TOKEN))
        writer = running.enter_context(lookalike("tgi", name=HOSTED, kind="llm", key=TOKEN))
        deployments.items = {"YOUR_NAME": [deployment("ranker", url=ranker.url, repository=RERANKER)]}
        deployments.servers[EMBEDDER] = embedder.url
        env = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ} | {
            "HOME": str(folder / "home"),
            "HUBGATE_PORT": "0",
            "HF_ENDPOINT": hub.url,
            "HUBGATE_ROUTER_URL": router.url,
            "HUBGATE_ENDPOINTS_API_URL": f"{deployments.url}/v2",
            "HUBGATE_ENDPOINTS_CATALOG_URL": f"{deployments.url}/api/v1/catalog",
        }
        servers = (embedder.url, ranker.url, writer.url, deployments.url)
        hosts = "".join(f" --host {host}" for host in ("huggingface", *servers))
        yield World(
            folder,
            env,
            {
                "hf_YOUR_TOKEN": TOKEN,
                "connection add my-token": f"connection add my-token{hosts}",
                "https://YOUR-ENDPOINT.endpoints.huggingface.cloud": embedder.url,
                "https://YOUR-RERANKER.endpoints.huggingface.cloud": ranker.url,
                "https://YOUR-WRITER.endpoints.huggingface.cloud": writer.url,
            },
        )
