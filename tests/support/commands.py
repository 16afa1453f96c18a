"""Runs `hubgate` commands in this process, on the home of the `settings` fixture.

With the `gateway` fixture, they call its gateway.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import pytest

from hubgate.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubgate.settings import Settings

    Command = Callable[..., "CommandResult"]


class CommandResult(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def fields(self) -> dict[str, str]:
        """The output as `name  value` lines."""
        return dict(line.strip().split("  ", 1) for line in self.out.splitlines())

    @property
    def rows(self) -> list[list[str]]:
        """The output as a table, without its header."""
        return [line.split() for line in self.out.splitlines()[1:]]


@pytest.fixture
def hubgate(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `hubgate` with the given arguments."""
    for name in [name for name in os.environ if name.startswith("HUBGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HUBGATE_HOME", str(settings.home))
    monkeypatch.setenv("HUBGATE_SECRET_KEY_FILE", str(settings.secret_key_file))
    # Never a gateway that a developer runs on the default port.
    monkeypatch.setenv("HUBGATE_PORT", "0")

    def run(*arguments: str) -> CommandResult:
        capsys.readouterr()
        status: int | str | None = 0
        try:
            main(arguments)
        except SystemExit as ended:
            status = ended.code
        assert isinstance(status, int)
        return CommandResult(status, *capsys.readouterr())

    return run
