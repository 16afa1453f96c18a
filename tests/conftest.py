"""Gateways for tests: real ones on sockets, and one with a scripted model."""

from __future__ import annotations

import os
import secrets
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings
from lookalikes.hub_api import running_hub_api
from running_gateway import RunningGateway
from scripted_gateway import open_scripted_gateway

from hubgate.features import load
from hubgate.settings import Settings
from hubgate.terminal.memory import tune_for_imports, tune_for_requests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from lookalikes.hub_api import HubApi
    from scripted_gateway import ScriptedGateway


# No test calls the Hub: nothing listens there. huggingface_hub reads this when it is imported.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"

# Each process of tokenizers would use all cores, and several processes run tests.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A background job of a shell ignores SIGINT, one of `nohup` SIGHUP, and processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Every database of the tests has the tables of all features, whichever test opens it.
load()

# No timed assertions: a busy machine must not fail a test.
hypothesis_settings.register_profile("hubgate", deadline=None)
hypothesis_settings.load_profile("hubgate")

pytest_plugins = [
    "commands",
    "lookalikes.endpoints.world",
    "gateway_process",
    "servers.trio",
    "postgres.databases",
    "screen",
    "stub_sources",
    "servers.valkey",
]


tune_for_imports()


def pytest_collection_finish() -> None:
    """Exclude the collected tests from garbage collection, which took a third of the time of some folders."""
    tune_for_requests()


LONG = {"clients", "console", "deploy", "guides", "jobs", "on_ray", "packaging", "process"}
"""Folders with tests that take many seconds."""


@pytest.hookimpl(trylast=True)  # after pytest-randomly
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests out to the workers. Tests that share a fixture stay together, so that it is built once.

    xdist's `worksteal` gives each worker a part of the list, and later moves tests from the end of one part to workers
    that are done. So what is long or stays together is spread over the first half of each part.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return
    sharing: dict[Path, list[pytest.Item]] = {}
    long, short = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        if _shares_a_fixture(item):
            sharing.setdefault(item.path, []).append(item)
        else:
            (long if LONG & {*item.path.parts} else short).append(item)
    parts: list[list[list[pytest.Item]]] = [[] for _ in range(workers)]
    for tests in [*sorted(sharing.values(), key=len, reverse=True), *([item] for item in long)]:
        min(parts, key=lambda part: sum(map(len, part))).append(tests)
    ordered: list[pytest.Item] = []
    for number, part in enumerate(parts):
        size = (len(items) - len(ordered)) // (workers - number) - sum(map(len, part))
        rest, short = short[: max(0, size)], short[max(0, size) :]
        places = [(0.5 * place / len(part), tests) for place, tests in enumerate(part)]
        places += [(place / len(rest), [item]) for place, item in enumerate(rest)]
        ordered += [item for _, tests in sorted(places, key=lambda placed: placed[0]) for item in tests]
    items[:] = ordered


def _shares_a_fixture(item: pytest.Item) -> bool:
    """Whether the test has a fixture that its module builds once."""
    definitions = getattr(item, "_fixtureinfo", None)
    shared = definitions.name2fixturedefs.values() if definitions else ()
    return any(fixture[-1].scope == "module" for fixture in shared)


@pytest.fixture
def kind() -> str:
    """Of the database: a module whose tests also run on PostgreSQL overrides it."""
    return "sqlite"


@pytest.fixture
def settings(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> Settings:
    """Settings of a gateway with its own home, on a free port."""
    settings = Settings(home=tmp_path / "home", secret_key_file=tmp_path / "config" / "secret.key", port=0)
    if kind != "postgresql":  # many tests have a parameter of this name
        return settings
    url: str = request.getfixturevalue("migrated_url")
    return replace(settings, database_url=url, secret_keys=(secrets.token_urlsafe(32),))


@pytest.fixture
def gateway(settings: Settings) -> Iterator[RunningGateway]:
    """A gateway without endpoints, after its first start."""
    with RunningGateway(settings) as running:
        yield running


@pytest.fixture
def hub_site() -> Iterator[HubApi]:
    """A look-alike of the Hub's API."""
    with running_hub_api() as site:
        yield site


@pytest.fixture(scope="session")
def local_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway whose local endpoint, all-minilm-l6-v2, is loaded. Shared by all tests, which must not change it."""
    folder = tmp_path_factory.mktemp("local")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0)
    with RunningGateway(settings, with_ready_endpoint=True) as running:
        running.settle()
        yield running


@pytest.fixture
async def scripted(settings: Settings) -> AsyncIterator[ScriptedGateway]:
    """The application with one endpoint, `e5`, with two dimensions and a scripted model."""
    async with open_scripted_gateway(settings) as gateway:
        yield gateway
