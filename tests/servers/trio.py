"""Three gateways as processes on one PostgreSQL database, for all tests of a module."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from gateway_process import GatewayProcess, Home
from running_gateway import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from postgres.databases import Databases
    from running_gateway import Reply

NAMES = ("gate-1", "gate-2", "gate-3")
EDITED = ("requests_per_minute", "burst", "tokens_per_minute")
"""One field for each gateway, so that all edits can be found afterwards."""


class Trio:
    """Gateways with these names, with one admin key. More can be added with `home`."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        """Of the database."""
        self.admin = secrets.token_urlsafe(24)
        self._folder = folder
        self._secret_key = secrets.token_urlsafe(32)
        self.gateways: Sequence[GatewayProcess] = ()
        self.changes = self.late = 0
        """How many changes were made, and answered before these gateways followed them."""

    def home(self, name: str) -> Home:
        """A home on another machine, as far as hubgate can see."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        home = Home(folder, self.admin)
        home.env |= {
            "HUBGATE_DATABASE_URL": self.url,
            "HUBGATE_SECRET_KEY": self._secret_key,
            "HUBGATE_GATE_NAME": name,
        }
        return home

    def request(self, number: int, method: str, path: str, body: object = None) -> Reply:
        """Send a request to gateway 1, 2 or 3 with the admin key."""
        return self.gateways[number - 1].request(method, path, body, key=self.admin)

    def change(self, number: int, method: str, path: str, body: object = None) -> Any:
        """As `request`, for a change that must succeed; returns the decoded reply.

        All gateways follow the change when this returns. If the response says that some do not, as may happen on a
        machine under load, this waits for them.
        """
        reply = self.request(number, method, path, body)
        assert reply.status in {200, 201, 204}, reply.body
        self.changes += 1
        if pending := reply.headers["X-Hubgate-Pending"]:  # it also names a gateway that a test has killed
            self.late += any(name in pending for name in NAMES)
            newest = self.request(1, "GET", "/api/gates").json()["version"]
            eventually(
                lambda: all(gate["version"] >= newest for gate in self.gates() if gate["state"] == "serving")
            )
        return reply.json() if reply.body else None

    def register(self, name: str, number: int = 1, **form: object) -> None:
        self.change(number, "POST", "/api/endpoints", {"name": name, "source": "fake", **form})

    def statuses(self, model: str, key: str) -> list[int]:
        """What each gateway answers to a call."""
        return [gateway.embed(model, "a text", key=key).status for gateway in self.gateways]

    def check_refused(self, model: str, key: str) -> None:
        """All gateways refuse a key: with 429 after many wrong keys, when a valid one still gets 200."""
        assert set(self.statuses(model, key)) <= {401, 429}

    def gates(self) -> list[dict[str, Any]]:
        """What the first gateway knows of all."""
        gates: list[dict[str, Any]] = self.request(1, "GET", "/api/gates").json()["gates"]
        return gates

    def check_concurrent_edits(self, names: Sequence[str], rounds: int) -> int:
        """Let each gateway set a field of its own of every endpoint, `rounds` times, all at once.

        Every edit that was answered with 200 must be in force at all gateways; returns how many were.
        """
        answered = 0

        def edit(number: int) -> dict[tuple[str, str], int]:
            nonlocal answered
            field, made = EDITED[number], {}
            for value, name in product(range(11, 11 + rounds), names):
                body = {"rate_limit": {field: value}}
                reply = self.request(number + 1, "PATCH", f"/api/endpoints/{name}", body)
                assert reply.status in {200, 409}, reply.body
                if reply.status == 200:
                    made[name, field] = value
                    answered += 1
            return made

        with ThreadPoolExecutor(3) as threads:
            made = {key: value for each in threads.map(edit, range(3)) for key, value in each.items()}
        for gateway in self.gateways:
            endpoints = gateway.request("GET", "/api/endpoints", key=self.admin).json()["endpoints"]
            limits = {each["name"]: each.get("rate_limit", {}) for each in endpoints}
            assert made == {(name, field): limits[name][field] for name, field in made}
        return answered


@pytest.fixture(scope="module")
def trio(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    with databases.migrated() as url, ExitStack() as stack, ThreadPoolExecutor(3) as threads:
        trio = Trio(url, tmp_path_factory.mktemp("trio"))
        trio.gateways = [stack.push(trio.home(name).serve()) for name in NAMES]
        list(threads.map(GatewayProcess.__enter__, trio.gateways))
        yield trio
