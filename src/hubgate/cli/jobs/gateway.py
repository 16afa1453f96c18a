"""The gate that a bulk job works through: the one that runs, or one that the job starts for itself."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from hubgate.domain.errors import StoreFailed
from hubgate.store.lock import running_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    import uvicorn

    from hubgate.settings import Settings
    from hubgate.wiring import Gate

_STARTING_SECONDS = 30.0


@contextmanager
def some_gate(settings: Settings) -> Iterator[bool]:
    """A gate in this home while the context is open; whether it is the job's own.

    Raises:
        StoreFailed: there is none, and none can be started.
    """
    with ExitStack() as stack:
        own = not _runs(settings)
        if own:
            try:
                stack.enter_context(_OwnGate(settings))
            except StoreFailed:
                if not _runs(settings):
                    raise
                own = False  # another one was started at the same moment, and first
        yield own


def _runs(settings: Settings) -> bool:
    """Whether a gate runs; one that is just starting is waited for."""
    until = time.monotonic() + _STARTING_SECONDS
    while True:
        try:
            return running_gateway(settings.home) is not None
        except StoreFailed as error:
            if not error.retryable or time.monotonic() > until:
                raise
        time.sleep(0.1)


class _OwnGate:
    """`hubgate serve` in a thread, on a free port of the loopback interface; other commands find it as any gate."""

    def __init__(self, settings: Settings) -> None:
        self._settings = replace(settings, host="127.0.0.1", port=0)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        from hubgate.cli.server.serve import serve

        try:
            asyncio.run(serve(self._settings, started=self._on_start, with_ready_endpoint=False))
        except BaseException as error:  # noqa: BLE001 - told in the thread that waits
            self._failure = error
        finally:
            self._started.set()

    def _on_start(self, _: str, gate: Gate, server: uvicorn.Server) -> None:
        self._server = server
        if gate.first_admin_key:
            print(f"The gate's admin key, shown only this once: {gate.first_admin_key}", file=sys.stderr)
        asyncio.get_running_loop().call_soon(self._started.set)
