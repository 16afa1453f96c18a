"""The gateway of a bulk job: the one that is running, or one that the job starts for itself."""

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
    from hubgate.web.app import Application

_START_TIMEOUT_SECONDS = 30.0


@contextmanager
def ensure_gateway(settings: Settings) -> Iterator[bool]:
    """Make sure that a gateway runs in this home while the context is open. Yields whether this call started it.

    Raises:
        StoreFailed: none is running, and none can be started.
    """
    with ExitStack() as stack:
        is_own = not _is_running(settings)
        if is_own:
            try:
                stack.enter_context(OwnGateway(settings))
            except StoreFailed:
                if not _is_running(settings):
                    raise
                is_own = False  # another process started one in the meantime
        yield is_own


def _is_running(settings: Settings) -> bool:
    """Whether a gateway is running. If one is just starting, waits until it has."""
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while True:
        try:
            return running_gateway(settings.home) is not None
        except StoreFailed as error:
            if not error.retryable or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


class OwnGateway:
    """`hubgate serve` in a thread, on a free port of the loopback interface. Other commands find and use it as usual."""

    def __init__(self, settings: Settings) -> None:
        self._settings = replace(settings, host="127.0.0.1", port=0)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

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
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            self._failure = error
        finally:
            self._started.set()

    def _on_start(self, _: str, application: Application, server: uvicorn.Server) -> None:
        self._server = server
        if application.first_admin_key:
            print(f"hubgate's admin key, shown only once: {application.first_admin_key}", file=sys.stderr)
        asyncio.get_running_loop().call_soon(self._started.set)
