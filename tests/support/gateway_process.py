"""Runs `hubgate` as a separate process, with its own home, and reads its output line by line."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING, Self

import pytest
from commands import CommandResult
from running_gateway import send

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from pathlib import Path
    from typing import IO

    from running_gateway import Reply

HUBGATE = (sys.executable, "-m", "hubgate")
_TIMEOUT_SECONDS = 240.0
_ADMIN_KEY = secrets.token_urlsafe(24)


class Home:
    """A folder for a gateway's data and key file, and commands that run on it.

    Args:
        folder: the user's home folder.
        admin_key: set by the environment, else the gateway generates one.
    """

    def __init__(self, folder: Path, admin_key: str = "") -> None:
        self.admin_key = admin_key
        self.patience = _TIMEOUT_SECONDS
        """Seconds for what its gateway is waited for."""
        self.program: Sequence[str] = HUBGATE
        removed = ("HUBGATE_", "HF_", "XDG_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(removed)}
        self.env |= {
            "HOME": str(folder),
            "HUBGATE_HOME": str(folder / "data"),
            "HUBGATE_PORT": "0",
            "HUBGATE_ADMIN_KEY": admin_key,
            "HF_HUB_OFFLINE": "1",
        }

    def run(self, *arguments: str, **env: str) -> CommandResult:
        """Run one command and wait for it."""
        completed = subprocess.run(
            [*self.program, *arguments],
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        return CommandResult(completed.returncode, completed.stdout, completed.stderr)

    def serve(self, *options: str, **env: str) -> GatewayProcess:
        """Run `hubgate serve` while the context is open."""
        return GatewayProcess(self.env | env, options, self.patience, self.program)


class GatewayProcess:
    """`hubgate serve`, running while its context is open.

    Args:
        env: its environment.
        options: of the command.
        patience: seconds for what is waited for.
        program: that is run.
    """

    url: str

    def __init__(
        self,
        env: dict[str, str],
        options: Sequence[str] = (),
        patience: float = _TIMEOUT_SECONDS,
        program: Sequence[str] = HUBGATE,
    ) -> None:
        self._program = program
        self._env = env
        self._patience = patience
        self._options = options
        self._lines: list[str] = []
        self._more = threading.Condition()
        self._open = 2

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [*self._program, "serve", *self._options],
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream,))
            for stream in (self._process.stdout, self._process.stderr)
        ]
        for reader in self._readers:
            reader.start()
        self.url = self.wait_for(r"serves on (http://[^\s,]+)")[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything printed so far to stdout and stderr."""
        with self._more:
            return "".join(self._lines)

    @property
    def traceback(self) -> str:
        """The output from the first traceback on; empty if there is none."""
        return "".join(self.output.partition("Traceback")[1:])

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for output that matches the pattern."""
        found = None

        def matches() -> bool:
            nonlocal found
            found = re.search(pattern, "".join(self._lines))
            return found is not None or not self._open

        with self._more:
            self._more.wait_for(matches, self._patience)
        assert found is not None, f"never printed {pattern!r}:\n{self.output}"
        return found

    def signal(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def wait(self) -> int:
        """Wait until the process exits and all its output is read, and return its status."""
        status = self._process.wait(self._patience)
        for reader in self._readers:
            reader.join()
        return status

    def request(self, method: str, path: str, body: object = None, *, key: str | None = None) -> Reply:
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        payload = None if body is None else json.dumps(body).encode()
        return send(urllib.request.Request(self.url + path, payload, headers, method=method))

    def embed(self, model: str, text: str, *, key: str) -> Reply:
        return self.request("POST", "/v1/embeddings", {"model": model, "input": text}, key=key)

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with self._more:
                    self._lines.append(line)
                    self._more.notify_all()
        with self._more:
            self._open -= 1
            self._more.notify_all()


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with the fake endpoint `words`, added without a running gateway so that no model is loaded."""
    folder = tmp_path_factory.mktemp("prepared")
    added = Home(folder, _ADMIN_KEY).run("add", "words", "--fake", "--dimensions", "8")
    assert added.status == 0, added.err
    return folder


@pytest.fixture
def home(prepared_folder: Path, tmp_path: Path) -> Home:
    """A copy of the prepared home."""
    shutil.copytree(prepared_folder, tmp_path, dirs_exist_ok=True)
    return Home(tmp_path, _ADMIN_KEY)
