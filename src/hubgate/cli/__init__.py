"""The command line: parse, call `/api`, print."""

from hubgate.cli.main import main

__all__ = ["main"]
