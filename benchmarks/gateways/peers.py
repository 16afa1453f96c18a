"""How each other gateway is configured and started: one process on one core, before the canned OpenAI server."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from support.loopback import free_port, wait_for
from support.processes import Process

from gateways.environments import locked_version, node_environment, python_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

KEY = "sk-benchmark"
_BEARER = {"Authorization": f"Bearer {KEY}"}
_TENSORZERO = Path(__file__).with_name("tensorzero_process.py")


class Route(NamedTuple):
    """Where and how a gateway is asked."""

    url: str
    model: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that answers."""

    process: Process
    chat: Route
    embeddings: Route
    responses: Route | None = None
    """The Responses API before a server of chats."""


class Peer(NamedTuple):
    """A gateway of a package registry."""

    name: str
    version: str
    does: str
    """What it does for each request, as configured here."""
    start: Callable[[Path, int, str], AbstractContextManager[Running]]
    """Start it with a folder and a core, before the server at a URL that ends in /v1."""
    is_slow: bool = False
    """Measured over fewer connections: requests that the end of a turn cuts off cost CPU time and are not counted."""
    calls: frozenset[str] | None = None
    """The names of those that it is asked for; `None` for all."""


@contextmanager
def litellm(folder: Path, core: int, upstream: str, *, cached: bool = False) -> Iterator[Running]:
    """LiteLLM's proxy, one worker, without a database. By default it caches nothing."""
    environment = python_environment("litellm")
    folder.mkdir()
    behind = {"model": "openai/canned", "api_base": upstream, "api_key": "none"}
    cache = {"type": "local", "supported_call_types": ["embedding", "aembedding"]}
    config = {
        "model_list": [
            {"model_name": "canned", "litellm_params": behind},
            {"model_name": "responses", "litellm_params": {**behind, "use_chat_completions_api": True}},
        ],
        "litellm_settings": {"telemetry": False, "cache": cached, "cache_params": cache},
        "general_settings": {"master_key": KEY},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = [str(environment / "bin" / "litellm"), "--config", str(folder / "config.yaml")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "REPEATED_STREAMING_CHUNK_LIMIT": "1000",  # the canned stream repeats a word, which LiteLLM takes for a loop
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
    }
    with _started(command, folder, core, f"http://127.0.0.1:{port}/health/liveliness", env=env) as process:
        responses = Route(f"http://127.0.0.1:{port}/v1/responses", "responses", _BEARER)
        yield replace(_openai(process, port), responses=responses)


@contextmanager
def _tensorzero(folder: Path, core: int, upstream: str) -> Iterator[Running]:
    """The HTTP gateway that its Python package carries for the OpenAI client."""
    environment = python_environment("tensorzero")
    folder.mkdir()
    provider = f'type = "openai"\napi_base = "{upstream}"\nmodel_name = "canned"\napi_key_location = "none"\n'
    config = "[gateway]\nobservability.enabled = false\n"
    for table in ("models", "embedding_models"):
        config += f'[{table}.canned]\nrouting = ["canned"]\n[{table}.canned.providers.canned]\n{provider}'
    (folder / "tensorzero.toml").write_text(config)
    at = folder / "url"
    command = [
        str(environment / "bin" / "python"),
        str(_TENSORZERO),
        str(folder / "tensorzero.toml"),
        str(at),
    ]
    with Process(command, core=core, output=folder / "output.log", env=_environment(folder)) as process:
        url = _written(at, process)
        yield Running(
            process,
            Route(f"{url}/chat/completions", "tensorzero::model_name::canned", {}),
            Route(f"{url}/embeddings", "tensorzero::embedding_model_name::canned", {}),
        )


@contextmanager
def _portkey(folder: Path, core: int, upstream: str) -> Iterator[Running]:
    program = node_environment("portkey") / "node_modules/@portkey-ai/gateway/build/start-server.js"
    folder.mkdir()
    port = free_port()
    command = ["node", str(program), "--headless", f"--port={port}"]
    headers = {"x-portkey-custom-host": upstream, **_BEARER}
    with _started(command, folder, core, f"http://127.0.0.1:{port}/") as process:
        url = f"http://127.0.0.1:{port}/v1"
        yield Running(
            process,
            Route(f"{url}/chat/completions", "canned", {"x-portkey-provider": "openai", **headers}),
            # As `openai` its embeddings fail with Node.js 20: it changes headers that are immutable there.
            Route(f"{url}/embeddings", "canned", {"x-portkey-provider": "siliconflow", **headers}),
        )


@contextmanager
def _rolter(folder: Path, core: int, upstream: str) -> Iterator[Running]:
    environment = python_environment("rolter")
    folder.mkdir()
    port = free_port()
    (folder / "rolter.toml").write_text(
        f'[server]\nhost = "127.0.0.1"\nport = {port}\n'
        f'[[providers]]\nname = "canned"\nkind = "openai_compatible"\napi_base = "{_server(upstream)}"\n'
        '[[routes]]\nmodel = "canned"\nstrategy = "round_robin"\n'
        '[[routes.targets]]\nprovider = "canned"\nmodel = "canned"\n'
        f'[[virtual_keys]]\nkey = "{KEY}"\nname = "benchmark"\nmodels = []\n'
    )
    command = [str(environment / "bin" / "rolter"), "gateway", "--config", str(folder / "rolter.toml")]
    with _started(
        command, folder, core, f"http://127.0.0.1:{port}/metrics", env={"ROLTER_UPDATE_CHECK": "false"}
    ) as process:
        yield _openai(process, port)


@contextmanager
def _ferro(folder: Path, core: int, upstream: str) -> Iterator[Running]:
    environment = python_environment("ferrogw")
    folder.mkdir()
    config = {"strategy": {"mode": "single"}, "targets": [{"virtual_key": "openai", "models": ["canned"]}]}
    (folder / "config.yaml").write_text(json.dumps(config))
    port = free_port()
    env = {
        "PORT": str(port),
        "MASTER_KEY": KEY,
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": upstream,
        "GATEWAY_CONFIG": str(folder / "config.yaml"),
        "RATE_LIMIT_RPS": "0",
    }
    with _started(
        [str(environment / "bin" / "ferrogw"), "serve"],
        folder,
        core,
        f"http://127.0.0.1:{port}/readyz",
        env=env,
    ) as process:
        yield _openai(process, port)


@contextmanager
def _smg(folder: Path, core: int, upstream: str) -> Iterator[Running]:
    environment = python_environment("smg")
    folder.mkdir()
    command = [str(environment / "bin" / "smg"), "launch"]
    with _router(command, folder, core, upstream) as running:
        yield running


@contextmanager
def _vllm_router(folder: Path, core: int, upstream: str) -> Iterator[Running]:
    environment = python_environment("vllm-router")
    folder.mkdir()
    with _router([str(environment / "bin" / "vllm-router")], folder, core, upstream) as running:
        yield running


@contextmanager
def _router(command: Sequence[str], folder: Path, core: int, upstream: str) -> Iterator[Running]:
    """Both routers for model servers have the same options."""
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--worker-urls", _server(upstream)]
    options += ["--api-key", KEY, "--prometheus-port", str(free_port())]
    with _started([*command, *options], folder, core, f"http://127.0.0.1:{port}/readiness") as process:
        yield _openai(process, port)


@contextmanager
def _started(
    command: Sequence[str],
    folder: Path,
    core: int,
    ready: str,
    *,
    env: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    with Process(
        command, core=core, output=folder / "output.log", env={**_environment(folder), **(env or {})}
    ) as process:
        wait_for(ready, process.check, within=120)
        yield process


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "HOME": str(folder)}


def _openai(process: Process, port: int) -> Running:
    url = f"http://127.0.0.1:{port}/v1"
    return Running(
        process,
        Route(f"{url}/chat/completions", "canned", _BEARER),
        Route(f"{url}/embeddings", "canned", _BEARER),
    )


def _server(upstream: str) -> str:
    return upstream.removesuffix("/v1")


def _written(path: Path, process: Process) -> str:
    """What a process writes when it is ready."""
    until = time.monotonic() + 60
    while not path.exists():
        process.check()
        if time.monotonic() > until:
            raise SystemExit(f"{path} was not written within a minute")
        time.sleep(0.01)
    return path.read_text()


PEERS = (
    Peer(
        "TensorZero",
        locked_version("tensorzero"),
        "no key check (it needs PostgreSQL), no log of requests, no counters; writes replies in its own words; "
        "observability (ClickHouse) off",
        _tensorzero,
    ),
    Peer("rolter", locked_version("rolter"), "key check, counters at /metrics, no log of requests", _rolter),
    Peer(
        "Ferro",
        locked_version("ferrogw"),
        "key check, a log line, counters at /metrics; rate limit off",
        _ferro,
    ),
    Peer("smg", locked_version("smg"), "key check, log lines, counters; balances over model servers", _smg),
    Peer(
        "vllm-router",
        locked_version("vllm-router"),
        "no key check, log lines, counters; balances over model servers",
        _vllm_router,
    ),
    Peer("Portkey", "1.15.2", "no key check, no log, no counters", _portkey, is_slow=True),
    Peer(
        "LiteLLM",
        locked_version("litellm"),
        "key check, a log line, spend counted in memory; no database",
        litellm,
        is_slow=True,
    ),
    Peer(
        "LiteLLM-cache",
        locked_version("litellm"),
        "the same, and vectors cached in memory",
        partial(litellm, cached=True),
        is_slow=True,
        calls=frozenset({"embeddings"}),
    ),
)
