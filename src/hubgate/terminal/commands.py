"""How commands are declared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from typer import Typer

if TYPE_CHECKING:
    from collections.abc import Callable


class Command(NamedTuple):
    """A command of `hubgate`."""

    order: int
    """Its place in `--help`."""
    name: str
    run: Callable[..., Any] | Typer
    """A function, or a group of commands."""

    def add_to(self, app: Typer) -> None:
        if isinstance(self.run, Typer):
            app.add_typer(self.run, name=self.name)
        else:
            app.command(self.name)(self.run)
