"""A gate whose model answers by script."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest
from scripted import scripted_gate

from hubgate.settings import Settings
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from scripted import ScriptedGate


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
    """The application with one endpoint, `e5`, of two dimensions."""
    shutil.copytree(migrated, tmp_path, dirs_exist_ok=True)
    async with scripted_gate(settings) as gate:
        yield gate
