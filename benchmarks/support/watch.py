"""How long a gateway keeps a request waiting that needs no work: `/healthz`, asked all the time by another process."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.synchronize import Event

_SETTLED = 0.001
"""Seconds until the system has counted the CPU time of an answer."""


class Answer(NamedTuple):
    """Of `/healthz`, in milliseconds."""

    waited: float
    spent: float
    """CPU time of the gateway meanwhile: how long the answer would have taken with a processor to itself."""


@contextlib.contextmanager
def healthz_asked_all_the_time(url: str, pid: int, *, pause: float = 0.02) -> Iterator[list[Answer]]:
    """Ask with pauses of so many seconds; at the end the list has all answers."""
    spawn = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[list[Answer]] = spawn.Queue()
    begun, over = spawn.Event(), spawn.Event()
    process = spawn.Process(target=ask_on, args=(url, pid, pause, (begun, over), answers))
    process.start()
    begun.wait(30)
    taken: list[Answer] = []
    try:
        yield taken
    finally:
        over.set()
        taken += answers.get(timeout=60)
        process.join()


def cpu_ms(pid: int) -> float:
    """CPU time of a process so far, of all its threads (the clock of clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2) * 1000


def ask_on(
    url: str,
    pid: int,
    pause: float,
    events: tuple[Event, Event],
    answers: multiprocessing.Queue[list[Answer]],
) -> None:
    """Ask until the second event; the first is for the first answer."""
    begun, over = events
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    taken = []
    while not over.is_set():
        start, spent = time.perf_counter(), cpu_ms(pid)
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        waited = (time.perf_counter() - start) * 1000
        time.sleep(_SETTLED)
        taken.append(Answer(waited, cpu_ms(pid) - spent))
        begun.set()
        time.sleep(pause)
    answers.put(taken)
