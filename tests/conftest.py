"""A real gate on a real socket, for the tests of the faces and the clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hubgate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import RunningGate


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of a gate with a home of its own, on a port of its own."""
    return Settings(home=tmp_path / "home", secret_key_file=tmp_path / "config" / "secret.key", port=0)


@pytest.fixture
def gate(settings: Settings) -> Iterator[RunningGate]:
    """An empty gate, as it is after its first start."""
    from harness import RunningGate

    with RunningGate(settings) as running:
        yield running


@pytest.fixture(scope="session")
def local_gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGate]:
    """A gate whose ready endpoint, all-minilm-l6-v2, answers. Shared by all tests: they leave it as it is."""
    from harness import RunningGate

    folder = tmp_path_factory.mktemp("local")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0)
    with RunningGate(settings, with_ready_endpoint=True) as running:
        running.settle()
        yield running
