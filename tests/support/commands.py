"""Runs commands in this process, on the home of the `settings` fixture; with the `gate` fixture through its gate."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import pytest

from hubgate.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubgate.settings import Settings

    Command = Callable[..., "Ran"]


class Ran(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def fields(self) -> dict[str, str]:
        """What it printed, one field a line."""
        return dict(line.strip().split("  ", 1) for line in self.out.splitlines())

    @property
    def rows(self) -> list[list[str]]:
        """What it printed as a table, without the heads."""
        return [line.split() for line in self.out.splitlines()[1:]]


@pytest.fixture
def hubgate(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`hubgate` with these arguments."""
    for name in [name for name in os.environ if name.startswith("HUBGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HUBGATE_HOME", str(settings.home))
    monkeypatch.setenv("HUBGATE_SECRET_KEY_FILE", str(settings.secret_key_file))
    monkeypatch.setenv(
        "HUBGATE_PORT", "0"
    )  # a gateway that a developer runs on the default port is another one

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        status: int | str | None = 0
        try:
            main(arguments)
        except SystemExit as ended:
            status = ended.code
        assert isinstance(status, int)
        return Ran(status, *capsys.readouterr())

    return run
