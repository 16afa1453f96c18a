"""The gate's log lines, written so that a line costs a request little."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from typing import Any

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def log_to_stderr(level: str) -> None:
    """Write everything of this level and above, one line each but for tracebacks."""
    # Nothing of these is in a line; to look for them takes a third of its time (Python's logging HOWTO, Optimization).
    logging._srcfile = None  # noqa: SLF001 - documented there
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = TurnHandler(sys.stderr)
    handler.setFormatter(SecondFormatter(FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for chatty in ("alembic", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class SecondFormatter(logging.Formatter):
    """Works the time out once a second."""

    _second = -1
    _told = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's
        """As logging's own."""
        second = int(record.created)
        if second != self._second:
            self._told = time.strftime(self.default_time_format, time.localtime(second))
            self._second = second
        return f"{self._told},{int(record.msecs):03d}"


class TurnHandler(logging.StreamHandler[Any]):
    """Writes the lines of one turn of the event loop together, at its end; those of other threads at once."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line for the end of the turn, or write it."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a line that cannot be made stops nobody: logging's own way
            self.handleError(record)
            return
        first = not self._lines
        self._lines.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.write()
        else:
            if first:
                loop.call_soon(self.write)

    def write(self) -> None:
        """Write what is kept."""
        with self.lock:  # type: ignore[union-attr] # every handler of a stream has one
            lines, self._lines = self._lines, []
            if lines:
                with contextlib.suppress(OSError, ValueError):  # nobody reads them any more
                    self.stream.write("\n".join((*lines, "")))
                    self.stream.flush()

    def flush(self) -> None:
        """Write what is kept, at the latest when the process ends."""
        self.write()
