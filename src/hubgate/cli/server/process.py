"""Settings of the whole process: log lines, open files, signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
import time
from functools import lru_cache
from typing import Any, cast

from hubgate.web.http.access_log import ACCESS_LOG, LineHandler

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_OTHER_FILES = 1024  # connections to model servers, databases, logs

_log = logging.getLogger(__name__)


def log_to_stderr(level: str, label: str = "") -> None:
    """Write log records of this level and above, one line each except for tracebacks.

    `label` comes after the time.
    """
    # No line contains these, and finding them takes a third of its time (Python's logging HOWTO, Optimization).
    logging._srcfile = None  # noqa: SLF001 - documented there
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = BatchingHandler(sys.stderr)
    handler.setFormatter(CachedTimeFormatter(FORMAT.replace("%(level", f"{label}%(level")))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    access = logging.getLogger(ACCESS_LOG)
    access.propagate = False
    access.addHandler(handler)  # `log_request` makes no records for it
    for verbose in ("alembic", "uvicorn"):
        logging.getLogger(verbose).setLevel(logging.WARNING)


class CachedTimeFormatter(logging.Formatter):
    """Formats the time once per second, and a line without a traceback in one step."""

    _second = -1
    _formatted = ""
    _begin = (-1, "", "")
    """Of a line of level INFO: in which millisecond, the logger's name, and the text."""

    def format(self, record: logging.LogRecord) -> str:
        if self._fmt is None or record.exc_info or record.exc_text or record.stack_info:
            return super().format(record)
        record.message, record.asctime = record.getMessage(), self.formatTime(record)
        return self._fmt % record.__dict__

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's
        return self._time(record.created, int(record.msecs))

    def format_info(self, name: str, message: str) -> str:
        """The line of a record of level INFO that is made now."""
        millisecond = int(time.time() * 1000)
        at, of, begin = self._begin
        if at != millisecond or of != name:
            begin = f"{self._time(millisecond // 1000, millisecond % 1000)}{self._between(name)}"
            self._begin = (millisecond, name, begin)
        return begin + message

    @lru_cache(maxsize=16)  # noqa: B019 - there is one formatter in a process
    def _between(self, name: str) -> str:
        """What is between the time and the message, with which each line begins and ends."""
        return str(self._fmt) % {"asctime": "", "levelname": "INFO", "name": name, "message": ""}

    def _time(self, seconds: float, milliseconds: int) -> str:
        second = int(seconds)
        if second != self._second:
            self._formatted = time.strftime(self.default_time_format, time.localtime(second))
            self._second = second
        return f"{self._formatted},{milliseconds:03d}"


class BatchingHandler(logging.StreamHandler[Any], LineHandler):
    """Writes the lines of one turn of the event loop together; those of other threads at once."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as in logging's own handlers
            self.handleError(record)
            return
        self._add(line)

    def write_info(self, name: str, message: str) -> None:
        line = cast("CachedTimeFormatter", self.formatter).format_info(name, message)
        with self.lock:  # type: ignore[union-attr] # as in `flush`
            if self._lines:  # and so `flush` was scheduled
                self._lines.append(line)
            else:
                self._add(line)

    def _add(self, line: str) -> None:
        is_first = not self._lines
        self._lines.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            if is_first:
                loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write the pending lines; logging also calls this when the process exits."""
        with self.lock:  # type: ignore[union-attr] # every handler of a stream has one
            lines, self._lines = self._lines, []
            if lines:
                with contextlib.suppress(OSError, ValueError):  # the reader is gone
                    self.stream.write("\n".join((*lines, "")))
                    self.stream.flush()


def allow_open_files(connections: int) -> None:
    """Raise the soft limit of open files, often 1024, to what this number of client connections needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        _log.warning(
            "only %d files can be open: raise the limit (ulimit -n) or lower HUBGATE_MAX_CONNECTIONS", hard
        )
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # the system may have a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def stop_signals() -> list[signal.Signals]:
    """The signals that stop hubgate: SIGHUP, which a closed terminal sends, unless `nohup` lets the process ignore it."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    return signals


def say_stopped() -> None:
    """Print that hubgate has stopped, unless the terminal is gone: it may be the reason for the stop."""
    for stream, text in ((sys.stdout, "hubgate has stopped.\n"), (sys.stderr, "")):
        try:
            print(text, end="", file=stream, flush=True)
        except OSError:
            # Python would try to write the rest when it exits, and fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
