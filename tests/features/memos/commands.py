"""`hubgate memo TEXT`."""

from __future__ import annotations

from hubgate.terminal.client import api
from hubgate.terminal.commands import Command


def memo(text: str) -> None:
    """Keep a memo."""
    print(f"Memos: {api('POST', '/api/memos', {'text': text})['memos']}")


COMMANDS = (Command(120, "memo", memo),)
