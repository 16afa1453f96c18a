"""Small requests with large replies do not fill the memory: those of calls, of clients that do not read, and of batches."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import openai
import pytest
from batch_files import batch_input, create_batch, lines_of, wait_for_end
from running_gateway import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway_process import GatewayProcess, Home

MB = 1_000_000
CALLS = 16
BUDGET = 64 << 20
"""Room for one call of 2,048 texts, and 1,024 dimensions."""
BODY = {"model": "wide", "input": [f"text {n}" for n in range(2048)]}
BOUND = 150 * MB
"""Without the budget, the replies to 16 calls are 350 MB."""


@pytest.fixture
def gateway(home: Home) -> Iterator[GatewayProcess]:
    with home.serve(HUBGATE_MAX_TOTAL_REPLY_BYTES=str(BUDGET), HUBGATE_CACHE_BYTES="0") as gateway:
        form = {"name": "wide", "source": "fake", "dimensions": 1024}
        assert gateway.request("POST", "/api/endpoints", form, key=home.admin_key).status == 201
        yield gateway


def resident(gateway: GatewayProcess) -> int:
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@contextmanager
def bounded_growth(gateway: GatewayProcess) -> Iterator[None]:
    """Check that the memory stays within the bound, looking at it all the time."""
    start, peak, over = resident(gateway), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], resident(gateway))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    assert peak[0] - start < BOUND


def sent_call(gateway: GatewayProcess, home: Home, stack: ExitStack) -> socket.socket:
    """A call on a connection of its own, whose response is not read."""
    parts = urlsplit(gateway.url)
    connection = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=240))
    body = json.dumps(BODY).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {home.admin_key}\r\n"
    connection.sendall(
        f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    return connection


def read_response(connection: socket.socket) -> bytes:
    """The status line. All of the response is read."""
    with connection.makefile("rb") as stream:
        status = stream.readline()
        length = 0
        while (line := stream.readline().lower()) != b"\r\n":
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while length:
            length -= len(stream.read(min(length, 1 << 16)))
    return status


def test_large_replies_wait_until_others_were_read(gateway: GatewayProcess, home: Home) -> None:
    with ExitStack() as stack, bounded_growth(gateway):
        connections = [sent_call(gateway, home, stack) for _ in range(CALLS)]
        in_flight = re.compile(rf"^hubgate_requests_in_flight {CALLS + 1}(\.0)?$", re.MULTILINE)

        def all_arrived() -> bool:
            metrics = gateway.request("GET", "/metrics", key=home.admin_key).body.decode()
            return in_flight.search(metrics) is not None

        eventually(all_arrived)
        statuses = [read_response(connection) for connection in connections]
    assert set(statuses) <= {b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 Service Unavailable\r\n"}
    assert b"HTTP/1.1 200 OK\r\n" in statuses


def test_a_batch_with_large_replies_stays_within_the_memory(gateway: GatewayProcess, home: Home) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=home.admin_key, max_retries=0)
    with client, bounded_growth(gateway):
        done = wait_for_end(client, create_batch(client, batch_input([BODY] * CALLS)), 240)
        assert done.status == "completed"
        output = Path(home.env["HUBGATE_HOME"], "files", str(done.output_file_id))
        assert output.read_bytes().count(b"\n") == CALLS
        assert lines_of(client, done.error_file_id) == []
