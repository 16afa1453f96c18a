"""The command line: parse, call one verb of the gate, print."""

from hubgate.cli.main import main

__all__ = ["main"]
