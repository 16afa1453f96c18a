"""The gateway's log lines are complete, in order, from every thread, and flushed at exit."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import subprocess
import sys
import threading

import pytest

from hubgate.cli.server.process import FORMAT, BatchingHandler, CachedTimeFormatter


class Counted(io.StringIO):
    """A stream that counts how often it is written to."""

    times = 0

    def write(self, text: str) -> int:
        self.times += 1
        return super().write(text)


@pytest.fixture
def stream() -> Counted:
    return Counted()


@pytest.fixture
def log(stream: Counted) -> logging.Logger:
    handler = BatchingHandler(stream)
    handler.setFormatter(CachedTimeFormatter(FORMAT))
    logger = logging.Logger("hubgate.access", logging.INFO)  # noqa: LOG001 - one of the test's own
    logger.addHandler(handler)
    return logger


async def test_lines_of_one_loop_iteration_are_written_together(log: logging.Logger, stream: Counted) -> None:
    for number in range(5):
        log.info("line %d", number)
    assert stream.times == 0
    await asyncio.sleep(0)
    assert stream.times == 1
    assert re.findall("line .", stream.getvalue()) == [f"line {number}" for number in range(5)]
    log.info("line 5")
    await asyncio.sleep(0)
    assert stream.getvalue().endswith("line 5\n")


def test_lines_of_other_threads_are_written_at_once(log: logging.Logger, stream: Counted) -> None:
    thread = threading.Thread(target=log.info, args=("from a thread",))
    thread.start()
    thread.join()
    assert stream.getvalue().endswith("INFO hubgate.access from a thread\n")


def test_line_is_formatted_as_by_logging(log: logging.Logger, stream: Counted) -> None:
    record = log.makeRecord("hubgate.access", logging.WARNING, "", 0, "slow: %s", ("yes",), None)
    log.handle(record)
    log.handle(record)
    assert stream.getvalue() == 2 * (logging.Formatter(FORMAT).format(record) + "\n")


async def test_line_without_a_record_looks_the_same_and_is_written_in_order(stream: Counted) -> None:
    handler = BatchingHandler(stream)
    handler.setFormatter(CachedTimeFormatter(FORMAT.replace("%(level", "worker-1 %(level")))
    for number in range(2):
        handler.handle(logging.LogRecord("hubgate.access", logging.INFO, "", 0, "line %d", (number,), None))
        handler.write_info("hubgate.access", f"line {number}")
    await asyncio.sleep(0)
    assert stream.times == 1
    lines = [re.sub(r"^[-\d]{10} [:\d]{8},\d{3}", "now", line) for line in stream.getvalue().splitlines()]
    assert lines == [f"now worker-1 INFO hubgate.access line {number}" for number in (0, 0, 1, 1)]


def test_traceback_is_written_with_its_line(log: logging.Logger, stream: Counted) -> None:
    try:
        int("no number")
    except ValueError:
        log.exception("it failed")
    assert "Traceback" in stream.getvalue()
    assert stream.getvalue().endswith("'no number'\n")


def test_closed_stream_does_not_raise(log: logging.Logger, stream: Counted) -> None:
    stream.close()
    log.info("unheard")


def test_buffered_lines_are_written_at_exit() -> None:
    program = (
        "import asyncio, logging\n"
        "from hubgate.cli.server.process import log_to_stderr\n"
        "async def main():\n"
        "    log_to_stderr('info')\n"
        "    asyncio.get_running_loop().call_soon(logging.info, 'the last words')\n"
        "    await asyncio.sleep(0)\n"
        "asyncio.run(main())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=240
    )
    assert ran.stderr.endswith("INFO root the last words\n")
