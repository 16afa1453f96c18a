"""`hubgate` as a process, as an operator has it: a home of its own, its output line by line, signals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    import signal
    from pathlib import Path
    from typing import IO

HUBGATE = (sys.executable, "-m", "hubgate")
_PATIENCE = 60.0


class Ran(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


class Reply(NamedTuple):
    """What came back over HTTP."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Home:
    """A folder for a gate's data and its key file, and commands that work on it."""

    def __init__(self, folder: Path) -> None:
        ours = ("HUBGATE_", "HF_", "XDG_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.env |= {
            "HOME": str(folder),
            "HUBGATE_HOME": str(folder / "data"),
            "HUBGATE_PORT": "0",
            "HF_HUB_OFFLINE": "1",
        }

    def run(self, *arguments: str, **env: str) -> Ran:
        """One command, to its end."""
        ended = subprocess.run(
            [*HUBGATE, *arguments],
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    def serve(self, **env: str) -> GateProcess:
        """`hubgate serve`, while the context is open."""
        return GateProcess(self.env | env)


class GateProcess:
    """A gate that runs while its context is open."""

    url: str

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._lines: list[str] = []
        self._more = threading.Condition()
        self._open = 2

    def __enter__(self) -> Self:
        """Start it, and wait until it serves."""
        self._process = subprocess.Popen(
            [*HUBGATE, "serve"],
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
        self.ended()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def output(self) -> str:
        """All that it has said, on both streams."""
        with self._more:
            return "".join(self._lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first place in the output that matches, once there is one."""
        found = None

        def said() -> bool:
            nonlocal found
            found = re.search(pattern, "".join(self._lines))
            return found is not None or not self._open

        with self._more:
            self._more.wait_for(said, _PATIENCE)
        assert found is not None, f"never said {pattern!r}:\n{self.output}"
        return found

    def signal(self, which: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(which)

    def ended(self) -> int:
        """The exit status, once it has ended and all it said is read."""
        status = self._process.wait(_PATIENCE)
        for reader in self._readers:
            reader.join()
        return status

    def request(self, method: str, path: str, body: object = None, *, key: str | None = None) -> Reply:
        """One request over its socket."""
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        payload = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, payload, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as reply:
                return Reply(reply.status, reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read())

    def embed(self, model: str, text: str, *, key: str) -> Reply:
        """One text, through the OpenAI face."""
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
