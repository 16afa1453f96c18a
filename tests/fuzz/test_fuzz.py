"""Odd requests at every route of every face: none may fail inside hubgate. `make fuzz` sends many more of them."""

from __future__ import annotations

import http.client
import os
import random
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from console_client import ConsoleClient
from lookalikes.hub_api import running_hub_api
from lookalikes.server import lookalike
from odd_requests import Fuzzer, Request
from routes import every_route
from running_gateway import RunningGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubgate.settings import Settings

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "4"))
CASES = 500
"""In a round. Each begins with a gateway of its own, because odd requests delete and change what is there."""
ADMIN_KEY = "an-admin-key-that-no-request-can-revoke"
MODELS = {
    "e5": ("tei", "embedding", "text_embedding"),
    "sparse": ("tei", "sparse", "sparse_embedding"),
    "ranker": ("tei", "reranker", "rerank"),
    "chat": ("vllm", "llm", "chat_completion"),
    "text": ("tgi", "llm", "completion"),
    "t5": ("toolkit", "text2text", "completion"),
}


class Servers:
    """A gateway, a model server of each kind behind it, and one connection to the gateway."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        hub = stack.enter_context(running_hub_api()).url
        self.gateway = stack.enter_context(
            RunningGateway(replace(settings, admin_key=ADMIN_KEY, hf_endpoint=hub, endpoints_api_url=hub))
        )
        for name, (engine, kind, task) in MODELS.items():
            self.gateway.add(name, url=stack.enter_context(lookalike(engine, kind=kind)).url, task=task)
        self.gateway.add("fake")
        self.console = ConsoleClient(self.gateway)
        self.console.sign_in()
        self._cookie = "; ".join(f"{name}={value}" for name, value in self.console.cookies.items())
        self._connection = http.client.HTTPConnection(self.gateway.url.removeprefix("http://"), timeout=240)
        stack.callback(self._connection.close)

    def send(self, request: Request) -> tuple[int, str]:
        """The status of the answer, and its cause where it is an error."""
        headers = {"authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json"}
        if request.path.startswith("/ui"):
            headers = {"content-type": "application/x-www-form-urlencoded", "cookie": self._cookie}
        headers.update(request.headers)
        try:
            self._connection.request(request.method, request.path, request.body, headers)
            answer = self._connection.getresponse()
            answer.read()
        except (http.client.HTTPException, OSError):
            self._connection.close()
            raise
        return answer.status, answer.headers.get("x-hubgate-cause", "")


@pytest.fixture
def servers(settings: Settings) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(settings, stack)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_no_odd_request_fails_inside_the_gateway(servers: Servers, seed: int) -> None:
    """Whatever is sent, the answer is success or the caller's error: never a status of 500 or above."""
    fuzzer = Fuzzer(
        random.Random(seed),
        every_route(servers.gateway, servers.console.csrf),
        [*MODELS, "fake", "text_embedding", "rerank", "completion", "chat_completion"],
    )
    failed = []
    for request in islice(fuzzer.requests(), CASES):
        status, cause = servers.send(request)
        if status >= 500:
            failed.append(f"{status} {cause}: {request}")
    assert not failed, "\n".join(failed)
