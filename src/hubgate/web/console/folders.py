"""Where the console finds templates and messages: in its own folder, and in those of features."""

from __future__ import annotations

from pathlib import Path

CONSOLE = Path(__file__).parent
_folders = {CONSOLE: None}


def add_folder(folder: Path) -> None:
    """Also look in this folder."""
    _folders[folder] = None


def folders() -> tuple[Path, ...]:
    """The console's, then those of features."""
    return tuple(_folders)
