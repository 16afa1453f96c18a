"""Runs a whole gateway in a thread with the code of `hubgate serve`, so that tests call it over a socket."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import uvloop

from hubgate.cli.server.draining import DrainingServer
from hubgate.cli.server.serve import serve
from hubgate.settings import Settings
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message

    import uvicorn

    from hubgate.service.gateway import Gateway
    from hubgate.web.app import Application
    from hubgate.web.http.asgi import AsgiApp


NO_HUB = "http://127.0.0.1:13"
"""No test calls the real Hub: nothing listens there."""


class Reply(NamedTuple):
    """An HTTP response."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def send(request: urllib.request.Request) -> Reply:
    """Send a request. An HTTP error is a reply too."""
    try:
        with urllib.request.urlopen(request, timeout=240) as response:
            return Reply(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.headers, error.read())


_folder = tempfile.TemporaryDirectory()  # removed when the process ends


@cache
def migrated() -> Settings:
    """Settings of an empty database to copy: migrating one takes ten times as long as starting a gateway on it."""
    folder = Path(_folder.name)
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key")

    async def migrate() -> None:
        await (await SqlStore.open(settings)).close()

    with ThreadPoolExecutor(1) as thread:  # as the caller may run an event loop
        thread.submit(asyncio.run, migrate()).result()
    return settings


def copy_migrated(settings: Settings) -> None:
    """Give a new home a migrated database and its key file, unless the test sets keys of its own."""
    if settings.secret_keys or settings.secret_key_file.exists() or settings.home.exists():
        return
    shutil.copytree(migrated().home, settings.home)
    shutil.copytree(migrated().secret_key_file.parent, settings.secret_key_file.parent, dirs_exist_ok=True)


def eventually(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    """Wait until a condition outside this thread is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never became true"
        time.sleep(0.01)


class RunningGateway:
    """A gateway that runs while its context is open, in a home that is migrated already."""

    url: str
    admin_key: str
    service: Gateway
    app: AsgiApp

    def __init__(self, settings: Settings, *, with_ready_endpoint: bool = False) -> None:
        self.settings = replace(settings, hf_endpoint=settings.hf_endpoint or NO_HUB)
        self._with_ready_endpoint = with_ready_endpoint
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="gateway")

    def __enter__(self) -> Self:
        copy_migrated(self.settings)
        self._thread.start()
        self._started.wait(240)
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(240)
        assert not self._thread.is_alive(), "the gateway did not stop"
        if self._failure is not None:
            raise self._failure

    def settle(self) -> None:
        """Wait until the local models are loaded."""
        asyncio.run_coroutine_threadsafe(self.service.startup.settled(), self._loop).result(240)
        assert self.service.startup.unready() == {}

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Send a request with the admin key unless `key` is given; a body that is not `bytes` is sent as JSON."""
        payload = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        sent = {"content-type": "application/json", "authorization": f"Bearer {key or self.admin_key}"}
        sent.update(headers or {})
        return send(urllib.request.Request(self.url + path, payload, sent, method=method))

    def add(self, name: str = "fake", **form: object) -> dict[str, Any]:
        """Register an endpoint, a fake one unless the form says otherwise."""
        where = {} if {"url", "urls"} & form.keys() else {"source": "fake"}
        form = {"name": name, **where, **form}
        reply = self.request("POST", "/api/endpoints", form)
        assert reply.status == 201, reply.body
        endpoint: dict[str, Any] = reply.json()
        return endpoint

    def create_key(self, name: str = "app", **form: object) -> str:
        """Create a gateway key and return it."""
        reply = self.request("POST", "/api/keys", {"name": name, **form})
        assert reply.status == 201, reply.body
        key: str = reply.json()["key"]
        return key

    def _run(self) -> None:
        try:
            uvloop.run(
                serve(self.settings, started=self._on_start, with_ready_endpoint=self._with_ready_endpoint)
            )
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            self._failure = error
        finally:
            self._started.set()

    def _on_start(self, url: str, application: Application, server: uvicorn.Server) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server
        assert isinstance(server, DrainingServer)
        server.handshake_seconds = 0.0  # at the end nobody connects any more
        self.url = url
        self.app = application.app
        self.service = application.gateway
        self.admin_key = self.settings.admin_key or application.first_admin_key or ""
        self._loop.call_soon(self._started.set)
