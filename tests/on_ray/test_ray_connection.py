"""Connecting to a real Ray cluster whose client server fails at first, as it does on a busy head node."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import ray
from ray.core.generated.ray_client_pb2 import DataRequest, DataResponse, InitResponse
from ray_cluster import two_nodes

from hubgate.features.bulk.engine.rows import JobStopped
from hubgate.features.bulk.ray import cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]  # warnings of Ray's
DATAPATH = "/ray.rpc.RayletDataStreamer/Datapath"
FAILURE = "Traceback (most recent call last):\nRuntimeError: Starting Ray client server failed."


class Failing(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes all calls on to Ray's client server, but answers the first connections as that does when it fails."""

    def __init__(self, behind: str, failures: int) -> None:
        self._channel = grpc.insecure_channel(behind)
        self._failures = failures
        self.connections = 0

    def service(self, details: Any) -> Any:
        def answer(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            if details.method == DATAPATH:
                self.connections += 1
                if self.connections <= self._failures:
                    first = DataRequest.FromString(next(requests))
                    failed = InitResponse(ok=False, msg=FAILURE)
                    yield DataResponse(req_id=first.req_id, init=failed).SerializeToString()
                    for _ in requests:  # Ray ends the stream later than its client
                        pass
                    return
            call = self._channel.stream_stream(details.method)
            replies = call(requests, metadata=details.invocation_metadata)
            context.add_callback(replies.cancel)
            try:
                yield from replies
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        return grpc.stream_stream_rpc_method_handler(answer)


@contextmanager
def failing(behind: str, failures: int) -> Iterator[tuple[str, Failing]]:
    handler = Failing(behind, failures)
    server = grpc.server(ThreadPoolExecutor(32), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"ray://127.0.0.1:{port}", handler
    finally:
        server.stop(None).wait()


@pytest.fixture(scope="module")
def client_server() -> Iterator[str]:
    with two_nodes() as nodes:
        yield nodes.client_url.removeprefix("ray://")


def test_a_connection_that_ray_could_not_start_is_tried_again(client_server: str) -> None:
    reasons: list[str] = []
    with failing(client_server, 2) as (url, server), cluster.connected(url, reasons.append):
        assert len(ray.nodes()) == 2
        assert server.connections == 3
    assert [reason.rpartition("(")[2] for reason in reasons] == ["attempt 2 of 4) …", "attempt 3 of 4) …"]


def test_after_four_attempts_the_job_stops_with_ray_s_reason(client_server: str) -> None:
    with failing(client_server, 100) as (url, server):
        stopped = pytest.raises(JobStopped, match=r"in 4 attempts: .*Starting Ray client server failed")
        with stopped, cluster.connected(url, lambda _: None):
            pass
        assert server.connections == 4
