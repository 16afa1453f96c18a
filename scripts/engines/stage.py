"""A gateway, a real server behind it, the clients, and comparisons of their responses."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import openai
from elasticsearch import Elasticsearch
from huggingface_hub import InferenceClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from running_gateway import RunningGateway

Check: TypeAlias = "Callable[[Stage], None]"
"""Asks something, and raises where the answer is not as it must be. Its docstring is its claim."""
PATIENCE = 60.0
"""Seconds for one answer, on a machine that does other things besides."""
Numbers: TypeAlias = "Iterable[Iterable[float]]"


@dataclass(frozen=True)
class Stage:
    """What a check is given.

    Args:
        gateway: the server is registered there, under a name for each of its tasks (`name_of`).
        engine: what it must be recognised as.
        url: the server's own.
        token: that it wants.
        tasks: that it is registered for.
    """

    gateway: RunningGateway
    engine: str
    url: str
    token: str
    tasks: tuple[str, ...]

    def name_of(self, task: str) -> str:
        """The endpoint for a task."""
        return f"{self.engine}-{task.replace('_', '-')}"

    def directly(self, path: str, **body: object) -> Any:
        """What the server itself answers, decoded; an error status is an error."""
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return json.load(reply)

    def register(self, name: str, task: str, **form: object) -> Any:
        """What the gateway says when the server is registered, decoded."""
        form = {"name": name, "task": task, "url": self.url, "token": self.token, **form}
        return self.gateway.request("POST", "/api/endpoints", form).json()

    @cached_property
    def openai(self) -> openai.OpenAI:
        """OpenAI's client; its `model` is an endpoint's name."""
        return openai.OpenAI(
            base_url=f"{self.gateway.url}/v1", api_key=self.gateway.admin_key, max_retries=0, timeout=PATIENCE
        )

    @cached_property
    def elastic(self) -> Elasticsearch:
        """Elasticsearch's client."""
        return Elasticsearch(self.gateway.url, api_key=self.gateway.admin_key, request_timeout=PATIENCE)

    def hub(self, task: str) -> InferenceClient:
        """Hugging Face's client for one endpoint."""
        url = f"{self.gateway.url}/hf/{self.name_of(task)}"
        return InferenceClient(base_url=url, api_key=self.gateway.admin_key, timeout=PATIENCE)

    def used(self, task: str) -> tuple[int, int]:
        """The tokens that the gateway has counted for an endpoint: of prompts, and of what was written."""
        reply = self.gateway.request("GET", f"/api/usage?endpoint={self.name_of(task)}")
        rows = reply.json()["rows"] or [{"prompt_tokens": 0, "completion_tokens": 0}]
        return rows[0]["prompt_tokens"], rows[0]["completion_tokens"]

    def check_recognised(self, task: str) -> None:
        """See that the gateway knows what runs there, and finds it well."""
        shown = self.gateway.request("GET", f"/api/endpoints/{self.name_of(task)}").json()
        same(shown["facts"]["engine"], self.engine)
        looked = self.gateway.request("POST", f"/api/endpoints/{self.name_of(task)}/diagnose").json()
        assert looked["well"], looked
        checked = self.gateway.request("POST", f"/api/endpoints/{self.name_of(task)}/check")
        same(checked.status, 200, str(checked.body))


def same(told: object, expected: object, what: str = "it") -> None:
    """See that two answers are one."""
    assert told == expected, f"{what}: {told!r}, not {expected!r}"


def close(told: Numbers, expected: Numbers, within: float) -> None:
    """See that vectors are the same, number by number."""
    got, wanted = [list(vector) for vector in told], [list(vector) for vector in expected]
    same([len(vector) for vector in got], [len(vector) for vector in wanted], "the lengths")
    pairs = zip(chain(*got), chain(*wanted), strict=True)
    farthest = max(abs(one - other) for one, other in pairs)
    assert farthest <= within, f"{farthest} apart, more than {within}"


def refused(ask: Callable[[], object], kind: type[Exception], *words: str) -> None:
    """See that a client raises its own error, and that our words are in it."""
    try:
        answer = ask()
    except kind as error:
        told = str(error)
    else:
        raise AssertionError(f"it was not refused: {answer!r}")
    for word in words:
        assert word in told, f"{word!r} is not in {told!r}"
