"""Processes that are started, measured with all their children, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TICKS = os.sysconf("SC_CLK_TCK")
# Places after the command name in /proc/{pid}/stat (proc(5) counts from the pid).
_PARENT, _UTIME, _CSTIME = 1, 11, 14


class Process:
    """A program with a file for what it prints, pinned to one core unless `core` is `None`. Use it as a context."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        core: int | None,
        output: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._program = command[0]
        self._command = [*(() if core is None else ("taskset", "--cpu-list", str(core))), *command]
        self._env = env
        self.output = output

    def __enter__(self) -> Self:
        with self.output.open("ab") as output:
            self._popen = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._env,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(self._popen.pid, signal.SIGKILL)  # its own group: see start_new_session
            self._popen.wait()

    @property
    def pid(self) -> int:
        """Of the program itself: taskset becomes it."""
        return self._popen.pid

    def check(self) -> None:
        """Stop here, with its last words, if it has ended."""
        if self._popen.poll() is not None:
            words = self.output.read_text(errors="replace")[-2000:]
            raise SystemExit(f"{self._program} ended with {self._popen.returncode}:\n{words}")

    def cpu_seconds(self) -> float:
        """User and system time of the whole tree so far, children that have ended included."""
        return cpu_seconds(self.pid)

    def pss_mb(self) -> float:
        """Memory of the whole tree: shared pages are divided among those who share them."""
        kilobytes = 0
        for pid in tree(self.pid):
            for line in _lines(Path(f"/proc/{pid}/smaps_rollup")):
                if line.startswith("Pss:"):
                    kilobytes += int(line.split()[1])
        return kilobytes / 1024

    def sockets(self) -> int:
        """Open sockets of the whole tree."""
        return sum(
            _link(descriptor).startswith("socket:")
            for pid in tree(self.pid)
            for descriptor in Path(f"/proc/{pid}/fd").iterdir()
        )

    def idle_cpu(self, seconds: float) -> float:
        """The share of one core that it uses while nobody asks."""
        before, start = self.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        return (self.cpu_seconds() - before) / (time.monotonic() - start)

    def settle(self) -> None:
        """Wait until it does next to nothing, at most some seconds."""
        for _ in range(25):
            if self.idle_cpu(0.2) < 0.1:
                return


def end_on_sigterm() -> None:
    """End on SIGTERM as on Ctrl-C: contexts are left, so the processes that were started end, too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def cpu_seconds(root: int) -> float:
    """User and system time of a process and its descendants so far, those that have ended included."""
    ticks = 0
    for pid in tree(root):
        if stat := _stat(pid):
            ticks += sum(map(int, stat[_UTIME : _CSTIME + 1]))
    return ticks / _TICKS


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[_PARENT]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _stat(pid: int) -> list[str]:
    """The fields after the command name, which may hold spaces; nothing of a process that has ended."""
    lines = _lines(Path(f"/proc/{pid}/stat"))
    return lines[0].rpartition(")")[2].split() if lines else []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:
        return ""
