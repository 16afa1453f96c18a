"""A gateway that was held up, and is asked before it has followed what was changed meanwhile."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from running_gateway import eventually
from servers.trio import Trio

from hubgate.service.rounds import STALE_SECONDS, Rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway_process import GatewayProcess
    from postgres.databases import Databases


@pytest.fixture(scope="module")
def pair(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """Two gateways. The second one is held up."""
    with databases.migrated() as url, ExitStack() as stack:
        pair = Trio(url, tmp_path_factory.mktemp("pair"))
        homes = [pair.home(f"gate-{number}") for number in (1, 2)]
        pair.gateways = [stack.enter_context(home.serve()) for home in homes]
        pair.register("words", dimensions=4)
        yield pair


class _HeldUp:
    """A gateway that is stopped, with one request that it reads when it goes on."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=240)
        gateway.signal(signal.SIGSTOP)

    def first_answer(self, method: str, path: str, key: str, body: object = None) -> int:
        """Send a request, let the gateway go on, and return the status."""
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        self._gateway.signal(signal.SIGCONT)
        response = self._connection.getresponse()
        response.read()
        self._connection.close()
        return response.status


def _embed(model: str) -> tuple[str, str, dict[str, str]]:
    return "POST", "/v1/embeddings", {"model": model, "input": "a text"}


def _made(pair: Trio, path: str, form: dict[str, object]) -> Any:
    """Create something that the second gateway does not follow."""
    made = pair.request(1, "POST", path, form)
    assert made.status == 201
    assert "gate-2" in made.headers["X-Hubgate-Pending"]
    return made.json()


def _answers(expected: int, attempt: Callable[[str], int]) -> None:
    """Check the first answer of a gateway that goes on. On a busy machine it may not follow in time: then once more."""
    statuses = list[int]()
    while expected not in statuses:
        assert len(statuses) < 5, statuses
        statuses.append(attempt(f"new-{len(statuses)}"))


def test_new_key_is_accepted_by_a_gateway_that_is_behind(pair: Trio) -> None:
    def attempt(name: str) -> int:
        held_up = _HeldUp(pair.gateways[1])
        key = _made(pair, "/api/keys", {"name": name})["key"]
        method, path, body = _embed("words")
        return held_up.first_answer(method, path, key, body)

    _answers(200, attempt)


def test_new_endpoint_is_called_at_a_gateway_that_is_behind(pair: Trio) -> None:
    def attempt(name: str) -> int:
        held_up = _HeldUp(pair.gateways[1])
        _made(pair, "/api/endpoints", {"name": name, "source": "fake"})
        method, path, body = _embed(name)
        return held_up.first_answer(method, path, pair.admin, body)

    _answers(200, attempt)


def test_new_key_is_deleted_at_a_gateway_that_is_behind(pair: Trio) -> None:
    def attempt(name: str) -> int:
        held_up = _HeldUp(pair.gateways[1])
        _made(pair, "/api/keys", {"name": f"brief-{name}"})
        return held_up.first_answer("DELETE", f"/api/keys/brief-{name}", pair.admin)

    _answers(204, attempt)


def test_new_endpoint_gets_an_alias_at_a_gateway_that_is_behind(pair: Trio) -> None:
    def attempt(name: str) -> int:
        held_up = _HeldUp(pair.gateways[1])
        _made(pair, "/api/endpoints", {"name": f"target-{name}", "source": "fake"})
        alias = {"endpoint": f"target-{name}"}
        return held_up.first_answer("PUT", f"/api/aliases/alias-{name}", pair.admin, alias)

    _answers(200, attempt)


def test_revoked_key_is_refused_by_a_gateway_that_was_silent(pair: Trio) -> None:
    def attempt(name: str) -> int:
        key = pair.change(1, "POST", "/api/keys", {"name": f"revoked-{name}"})["key"]
        held_up = _HeldUp(pair.gateways[1])
        eventually(lambda: ("gate-2", "silent") in [(gate["name"], gate["state"]) for gate in pair.gates()])
        revoked = pair.request(1, "DELETE", f"/api/keys/revoked-{name}")
        assert (revoked.status, revoked.headers["X-Hubgate-Pending"]) == (204, "gate-2")
        method, path, body = _embed("words")
        return held_up.first_answer(method, path, key, body)

    _answers(401, attempt)


async def test_one_round_answers_all_who_wait_and_none_waits_for_a_slow_or_failing_database() -> None:
    rounds, asked = Rounds(), 0

    def wake() -> None:
        nonlocal asked
        asked += 1

    await rounds.next()  # SQLite: nothing is waited for
    rounds.wake = wake
    waiting = [asyncio.create_task(rounds.next()) for _ in range(3)]
    end_of_running = rounds.begin()
    await asyncio.sleep(0)
    end_of_running(True)
    await asyncio.sleep(0)
    assert asked == 3
    assert not any(task.done() for task in waiting), "the round had begun before"
    rounds.begin()(True)
    await asyncio.gather(*waiting)
    assert rounds.stale_at <= time.monotonic() + STALE_SECONDS
    rounds.begin()(False)
    await rounds.next()
    assert asked == 3, "the last round failed"
    rounds.begin()(True)
    await rounds.next()  # no round comes
    assert asked == 4
    await rounds.next()
    assert asked == 4, "one wait in vain is enough"
