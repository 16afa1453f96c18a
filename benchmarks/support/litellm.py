"""LiteLLM's proxy, for comparison: installed into an environment of its own, without a database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from support.loopback import free_port, wait_for
from support.processes import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "1.106.2"
KEY = {"Authorization": "Bearer sk-benchmark"}
ENVIRONMENT = Path(__file__).parents[2] / "build" / "bench" / f"litellm-{VERSION}"


def install() -> None:
    """Install it once; it stays under build/ for the next time."""
    python = ENVIRONMENT / "bin" / "python"
    if (ENVIRONMENT / "complete").exists():
        return
    print(f"Installing litellm[proxy] {VERSION} (once, some minutes) …", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(ENVIRONMENT)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-qq"]
    subprocess.run([*pip, f"litellm[proxy]=={VERSION}"], check=True)
    (ENVIRONMENT / "complete").touch()


@contextmanager
def litellm(folder: Path, core: int, upstream_url: str) -> Iterator[tuple[str, Process]]:
    """One worker with a key check, before the canned model server's OpenAI routes."""
    install()
    folder.mkdir()
    config = {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {
                    "model": "openai/canned",
                    "api_base": f"{upstream_url}/{path}/v1",
                    "api_key": "none",
                },
            }
            for name, path in (("small", "vllm/384"), ("large", "vllm/1024"), ("llm", "llm"))
        ],
        "litellm_settings": {"telemetry": False},
        "general_settings": {"master_key": "sk-benchmark"},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    env = {
        "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ.get('PATH', '')}",
        "HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    port = free_port()
    command = [str(ENVIRONMENT / "bin" / "litellm"), "--config", str(folder / "config.yaml")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    with Process(command, core=core, output=folder / "output.log", env=env) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/health/liveliness", process.check, within=120)
        yield url, process
