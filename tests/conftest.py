"""Gates for tests: real ones on real sockets, and one whose model answers by script."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from harness import RunningGate
from lookalikes.hub_api import running_hub_api
from scripted import scripted_gate

from hubgate.settings import Settings
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from lookalikes.hub_api import HubApi
    from scripted import ScriptedGate


# No test asks the Hub: where none is given, nothing listens. huggingface_hub reads this when it is imported.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"

# A shell's background job ignores Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["commands", "screen", "staged"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of a gate with a home of its own, on a port of its own."""
    return Settings(home=tmp_path / "home", secret_key_file=tmp_path / "config" / "secret.key", port=0)


@pytest.fixture
def gate(settings: Settings) -> Iterator[RunningGate]:
    """An empty gate, as it is after its first start."""
    with RunningGate(settings) as running:
        yield running


@pytest.fixture
def hub_site() -> Iterator[HubApi]:
    """What answers like the Hub's API."""
    with running_hub_api() as site:
        yield site


@pytest.fixture(scope="session")
def local_gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    """A gate whose ready endpoint, all-minilm-l6-v2, answers. Shared by all tests: they leave it as it is."""
    folder = tmp_path_factory.mktemp("local")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0)
    with RunningGate(settings, with_ready_endpoint=True) as running:
        running.settle()
        yield running


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty database, to be copied: to migrate one takes longer than a test."""
    folder = tmp_path_factory.mktemp("migrated")

    async def migrate() -> None:
        settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key")
        await (await SqlStore.open(settings)).close()

    asyncio.run(migrate())
    return folder


@pytest.fixture
async def scripted(settings: Settings, tmp_path: Path, migrated: Path) -> AsyncIterator[ScriptedGate]:
    """The application with one endpoint, `e5`, of two dimensions, whose model answers by script."""
    shutil.copytree(migrated, tmp_path, dirs_exist_ok=True)
    async with scripted_gate(settings) as gate:
        yield gate
