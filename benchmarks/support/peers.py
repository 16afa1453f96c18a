"""sentence-transformers and fastembed (and torch) in a separate environment, called through a pipe."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TORCH = "torch==2.13.0"
"""First and alone: its build for CPUs is a fifth of what a resolver would choose for the others."""
PEERS = ("sentence-transformers==6.2.0", "fastembed==0.9.1", "onnx==1.19.1")
ENVIRONMENT = Path(__file__).parents[2] / "build" / "bench" / "local-peers-1"


def install() -> None:
    """Install them once; they stay under build/ for the next time."""
    if (ENVIRONMENT / "complete").exists():
        return
    print(f"Installing {TORCH}, {', '.join(PEERS)} (once, some minutes, 1.7 GB) …", flush=True)
    python = ENVIRONMENT / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(ENVIRONMENT)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-qq"]
    subprocess.run([*pip, TORCH], check=True)
    subprocess.run([*pip, TORCH, *PEERS], check=True)
    (ENVIRONMENT / "complete").touch()


class Peers:
    """The process of the peers, both with the model loaded."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def ask(self, **question: Any) -> dict[str, Any]:
        """One question, one answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit("The process of sentence-transformers and fastembed ended.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def seconds(self, peer: str, texts: Sequence[str]) -> float:
        """How long a peer takes to embed these texts, with its defaults."""
        return float(self.ask(peer=peer, texts=texts)["seconds"])

    def vectors(self, peer: str, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """Its vectors."""
        answer = self.ask(peer=peer, texts=texts, vectors=True)
        return np.frombuffer(base64.b64decode(answer["vectors"]), "<f4").reshape(len(texts), -1)


@contextmanager
def peers(model: Path, folder: Path) -> Iterator[Peers]:
    """Both with the model of a folder; what they need besides goes to another."""
    install()
    program = Path(__file__).with_name("peers_process.py")
    command = [str(ENVIRONMENT / "bin" / "python"), "-W", "ignore", str(program), str(model), str(folder)]
    with (
        (folder / "peers.log").open("w") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HOME": str(folder)},
        ) as process,
    ):
        yield Peers(process)
        assert process.stdin is not None
        process.stdin.close()
