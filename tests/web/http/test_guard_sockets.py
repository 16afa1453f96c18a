"""The guard over real sockets: large bodies, broken requests and disconnects."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import random
import socket
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from lookalikes import lookalike
from running_gateway import RunningGateway, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hubgate.settings import Settings

MIB = 1 << 20


@pytest.fixture
def ended() -> Iterator[Ended]:
    """The access log, with a way to wait for a line."""
    handler = Ended()
    logger = logging.getLogger("hubgate.access")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


class Ended(logging.Handler):
    """The log lines of requests that have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.lines.append(record.getMessage())
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[list[str]], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.lines), 20)


def address(gateway: RunningGateway) -> tuple[str, int]:
    parts = urlsplit(gateway.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def raw(gateway: RunningGateway, method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    """A request as bytes."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {gateway.admin_key}\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode("latin-1") + body


def embedding(gateway: RunningGateway, *texts: str, headers: str = "") -> bytes:
    body = json.dumps({"model": "e5", "input": texts}).encode()
    return raw(gateway, "POST", "/v1/embeddings", body, headers)


def exchange(gateway: RunningGateway, request: bytes) -> bytes:
    """Everything the server sends until it closes, which the request must ask for."""
    with socket.create_connection(address(gateway), timeout=240) as connection:
        connection.sendall(request)
        return read_all(connection)


@contextmanager
def calling(gateway: RunningGateway, request: bytes) -> Iterator[socket.socket]:
    connection = socket.create_connection(address(gateway), timeout=240)
    try:
        connection.sendall(request)
        yield connection
    finally:
        connection.close()


class TestLargeBodies:
    """A client that is still sending reads the response only after it has sent everything."""

    @pytest.fixture
    def small(self, settings: Settings) -> Iterator[RunningGateway]:
        with RunningGateway(replace(settings, max_body_bytes=MIB)) as gateway:
            yield gateway

    def test_client_reads_the_413_when_it_sends_a_content_length(self, small: RunningGateway) -> None:
        reply = small.request("POST", "/v1/embeddings", b" " * 50 * MIB)
        assert (reply.status, reply.json()["error"]["code"]) == (413, "body_too_large")

    def test_chunked_upload_reads_the_413_and_the_connection_stays_open(self, small: RunningGateway) -> None:
        connection = http.client.HTTPConnection(*address(small), timeout=240)
        headers = {"Authorization": f"Bearer {small.admin_key}"}
        connection.request(
            "POST", "/v1/embeddings", (b" " * MIB for _ in range(20)), headers, encode_chunked=True
        )
        reply = connection.getresponse()
        assert reply.status == 413
        assert json.loads(reply.read())["error"]["code"] == "body_too_large"
        connection.request("GET", "/v1/models", headers=headers)
        assert connection.getresponse().status == 200
        connection.close()

    def test_expect_100_continue_is_answered_with_413_before_the_body(self, small: RunningGateway) -> None:
        head = raw(small, "POST", "/v1/embeddings", headers="Expect: 100-continue\r\nConnection: close\r\n")
        reply = exchange(small, head.replace(b"Content-Length: 0", b"Content-Length: 99999999"))
        assert reply.startswith(b"HTTP/1.1 413 ")
        assert b"100 Continue" not in reply

    def test_client_reads_an_error_event_after_a_large_upload(self, gateway: RunningGateway) -> None:
        reply = gateway.request("POST", "/_inference/gone/_stream", b" " * 20 * MIB)
        assert (reply.status, reply.headers["content-type"]) == (404, "text/event-stream")

    def test_client_reads_the_401_after_a_large_upload(self, small: RunningGateway) -> None:
        assert small.request("POST", "/v1/embeddings", b" " * 20 * MIB, key="wrong").status == 401


BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "bytes beyond ASCII in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: gate\r\n\r\n",
    "a size that is none": b"POST / HTTP/1.1\r\nHost: gate\r\nContent-Length: ten\r\n\r\n",
    "no path": b"CONNECT gate:80 HTTP/1.1\r\nHost: gate\r\n\r\n",
}


class TestCrowd:
    def test_connection_over_the_limit_gets_503_while_probes_succeed(self, settings: Settings) -> None:
        with (
            lookalike("tei") as server,
            RunningGateway(replace(settings, max_connections=2)) as gateway,
            ExitStack() as busy,
        ):
            gateway.add("e5", url=server.url)
            server.fail("hang", method="POST")
            asked = len(server.posts)
            for number in range(2):
                busy.enter_context(calling(gateway, embedding(gateway, f"text {number}")))
            server.wait_until(lambda s: len(s.posts) > asked)
            reply = exchange(gateway, embedding(gateway, "one too many"))
            assert reply.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in reply
            assert b"maximum number of connections is reached" in reply
            assert gateway.request("GET", "/healthz").status == 200

    def test_total_size_of_large_bodies_is_limited(self, settings: Settings) -> None:
        bounded = replace(settings, max_body_bytes=2 * MIB, max_total_body_bytes=2 * MIB)
        with lookalike("tei") as server, RunningGateway(bounded) as gateway:
            gateway.add("e5", url=server.url)
            server.fail("hang", method="POST")
            asked = len(server.posts)
            with calling(gateway, embedding(gateway, "a" * int(1.5 * MIB))):
                server.wait_until(lambda s: len(s.posts) > asked)
                server.release()
                refused = gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": "b" * MIB})
                assert (refused.status, refused.json()["error"]["code"]) == (503, "gate_busy")
                assert gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": "c"}).status == 200


class TestBrokenBodies:
    @pytest.mark.parametrize("path", ["/v1/embeddings", "/_inference/e5", "/api/keys"])
    def test_invalid_chunked_encoding_is_a_400(
        self, gateway: RunningGateway, path: str, ended: Ended
    ) -> None:
        gateway.add("e5")
        head = (
            f"POST {path} HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {gateway.admin_key}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nno size\r\n"
        )
        reply = exchange(gateway, head.encode())
        assert reply.startswith(b"HTTP/1.1 400 ")
        assert b"The chunked encoding of the request body is not valid." in reply
        ended.wait_for(lambda lines: f"POST {path} 400 " in lines[-1])


class TestHost:
    @pytest.mark.parametrize(
        ("head", "status"),
        [
            (b"GET /v1/models HTTP/1.1\r\n", 400),
            (b"GET /v1/models HTTP/1.1\r\nHost: gate\r\nHost: other\r\n", 400),
            (b"GET /v1/models HTTP/1.0\r\nHost: gate\r\nHost: gate\r\n", 400),
            (b"GET /v1/models HTTP/1.0\r\n", 200),
            (b"GET /v1/models HTTP/1.1\r\nHost: gate\r\nX-Twice: a\r\nX-Twice: b\r\n", 200),
        ],
    )
    def test_request_requires_exactly_one_host_header(
        self, gateway: RunningGateway, head: bytes, status: int
    ) -> None:
        rest = f"Connection: close\r\nAuthorization: Bearer {gateway.admin_key}\r\n\r\n"
        reply = exchange(gateway, head + rest.encode())
        assert reply.startswith(b"HTTP/1.1 %d " % status)
        if status == 400:
            error = json.loads(reply.partition(b"\r\n\r\n")[2])["error"]
            assert (error["code"], "Host header" in error["message"]) == ("invalid_request", True)


class TestBrokenRequests:
    @pytest.mark.parametrize("name", BROKEN)
    def test_malformed_request_is_a_400_and_the_gateway_keeps_serving(
        self, gateway: RunningGateway, name: str
    ) -> None:
        reply = exchange(gateway, BROKEN[name])
        assert reply.startswith(b"HTTP/1.1 400 ")
        assert b"Traceback" not in reply
        assert gateway.request("GET", "/healthz").status == 200

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/%ff%fe", 404),
            ("/%2e%2e/%2e%2e/etc/passwd", 404),
            ("/hf/%2e%2e/info", 404),
            ("/_inference/%00", 404),
            ("/api/endpoints/..%2f..%2fetc", 404),
            ("//", 405),
            ("/" + "a" * 60_000, 404),
            ("/v1/models?" + "a" * 60_000, 200),
            ("http://elsewhere.example/v1/models", 200),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_unusual_paths_get_a_short_response(
        self, gateway: RunningGateway, path: str, status: int
    ) -> None:
        reply = exchange(gateway, raw(gateway, "GET", path, headers="Connection: close\r\n"))
        assert reply.startswith(b"HTTP/1.1 %d " % status)
        assert len(reply) < 2000

    def test_long_headers_are_accepted(self, gateway: RunningGateway) -> None:
        headers = f"X-Long: {'a' * 60_000}\r\nConnection: close\r\n"
        assert exchange(gateway, raw(gateway, "GET", "/v1/models", headers=headers)).startswith(
            b"HTTP/1.1 200 "
        )

    def test_websocket_upgrade_is_rejected(self, gateway: RunningGateway) -> None:
        reply = exchange(
            gateway,
            raw(
                gateway,
                "GET",
                "/v1/embeddings",
                headers="Connection: close, Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            ),
        )
        assert reply.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 405 "))


class TestLeaving:
    def test_upstream_request_is_cancelled_when_the_client_disconnects(
        self, gateway: RunningGateway, ended: Ended
    ) -> None:
        with lookalike("tei") as server:
            gateway.add("e5", url=server.url)
            server.fail("hang", method="POST")
            asked = len(server.posts)
            with calling(gateway, embedding(gateway, "one")):
                server.wait_until(lambda s: len(s.posts) > asked)
            server.wait_until(lambda s: s.abandoned == 1)
            ended.wait_for(lambda lines: "cause=client_left" in lines[-1])
            assert "hubgate_requests_in_flight 1.0" in gateway.request("GET", "/metrics").body.decode()

    def test_diagnosis_is_cancelled_when_the_client_disconnects(self, gateway: RunningGateway) -> None:
        with lookalike("tei") as server:
            gateway.add("e5", url=server.url)
            server.fail("hang", method="POST")
            asked = len(server.posts)
            with calling(gateway, raw(gateway, "POST", "/api/endpoints/e5/diagnose")):
                server.wait_until(lambda s: len(s.posts) > asked)
            server.wait_until(lambda s: s.abandoned == 1)

    def test_shared_batch_continues_for_the_clients_still_connected(
        self, gateway: RunningGateway, ended: Ended
    ) -> None:
        with lookalike("tei") as server, ExitStack() as staying:
            gateway.add("e5", url=server.url, rate_limit={"max_concurrent_requests": 1, "burst": 99})
            server.fail("hang", method="POST", times=2)
            asked = len(server.posts)
            with ExitStack() as leaving:
                with calling(gateway, embedding(gateway, "first")):  # takes the one place that there is
                    server.wait_until(lambda s: len(s.posts) == asked + 1)
                    leaving.enter_context(calling(gateway, embedding(gateway, "leaves")))
                    stays = staying.enter_context(
                        calling(gateway, embedding(gateway, "stays", headers="Connection: close\r\n"))
                    )
                    queue = gateway.service.pipelines()["e5"].queue
                    assert queue is not None
                    until(gateway, lambda: queue.queued_calls == 2)
                server.wait_until(lambda s: len(s.posts) == asked + 2)
            ended.wait_for(lambda lines: sum("client_left" in line for line in lines) == 2)
            server.release()
            assert read_all(stays).startswith(b"HTTP/1.1 200 ")
            assert [sorted(texts) for texts in server.batches[asked:]] == [["first"], ["leaves", "stays"]]
            assert server.abandoned == 1

    def test_client_that_reads_a_complete_stream_is_not_logged_as_disconnected(
        self, gateway: RunningGateway, ended: Ended
    ) -> None:
        with lookalike("tei") as server:
            gateway.add("e5", url=server.url)
            server.fail("hang", method="POST", times=1)
            asked = len(server.posts)
            headers = "Accept: application/x-ndjson\r\nConnection: close\r\n"
            request = raw(gateway, "POST", "/api/endpoints/e5/diagnose", headers=headers)
            with calling(gateway, request) as connection:
                server.wait_until(lambda s: len(s.posts) > asked)
                server.release()
                assert b'"step":"answer","outcome":"passed"' in read_all(connection)
            ended.wait_for(lambda lines: "/diagnose" in lines[-1])
            assert "cause=ok" in ended.lines[-1]

    def metrics(self, gateway: RunningGateway) -> str:
        return gateway.request("GET", "/metrics").body.decode()

    def test_clients_that_disconnect_at_any_moment_leak_nothing(
        self, gateway: RunningGateway, ended: Ended
    ) -> None:
        chance, places, texts = random.Random(7), 4, [f"text {n}" for n in range(32)]
        with lookalike("tei", seconds=0.005) as server:
            gateway.add("e5", url=server.url, rate_limit={"max_concurrent_requests": places, "burst": 3000})
            gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": "warm"})
            tasks, files = tasks_of(gateway), files_open()
            for number in range(200):
                request = embedding(gateway, f"number {number}", *chance.sample(texts, chance.randrange(5)))
                part = request if chance.random() < 0.7 else request[: chance.randrange(len(request))]
                with calling(gateway, part) as connection:
                    if chance.random() < 0.2 and part == request:
                        connection.recv(16)  # the first bytes of the answer
            # The gateway may not have accepted the last connections yet.
            eventually(lambda: "hubgate_requests_in_flight 1.0" in self.metrics(gateway))
            until(gateway, lambda: tasks_here() <= tasks)
            metrics = self.metrics(gateway)
            assert 'hubgate_queue_calls{endpoint="e5"} 0.0' in metrics
            assert 'hubgate_upstream_in_flight{endpoint="e5"} 0.0' in metrics
            assert any("client_left" in line for line in ended.lines)
            # Connections to the model are kept for a while, each with an end here and one at the look-alike,
            # which closes its ends in its own time.
            eventually(lambda: files_open() <= files + 2 * places + 4)
            # Every place is free again: as many full requests as there are places are at the model at once.
            server.fail("hang", method="POST")
            asked = len(server.posts)
            with ExitStack() as stack:
                for number in range(places):
                    full = [f"{number} {text}" for text in texts]
                    stack.enter_context(calling(gateway, embedding(gateway, *full)))
                server.wait_until(lambda s: len(s.posts) == asked + places)


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def until(gateway: RunningGateway, condition: Callable[[], bool]) -> None:
    """Wait until something is true in the gateway's thread."""

    async def turn() -> None:
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)

    asyncio.run_coroutine_threadsafe(turn(), gateway._loop).result(240)


def tasks_here() -> int:
    return len(asyncio.all_tasks()) - 1  # without the one that counts


def tasks_of(gateway: RunningGateway) -> int:
    async def count() -> int:
        return tasks_here()

    return asyncio.run_coroutine_threadsafe(count(), gateway._loop).result(240)


def files_open() -> int:
    return len(list(Path("/dev/fd").iterdir()))
