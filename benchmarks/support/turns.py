"""The duration of a CPU benchmark: rounds, in which each subject has one turn."""

from __future__ import annotations

import argparse
from typing import NamedTuple


class Turns(NamedTuple):
    """What the command line asks for."""

    rounds: int
    """The first, which warms up, not counted."""
    seconds: int
    """Of each turn."""
    quick: bool
    """A look, not a measurement."""


def asked_turns(description: str) -> Turns:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick", action="store_true", help="two rounds of one second: a look, not a measurement"
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=2, help="of each turn")
    given = parser.parse_args()
    rounds, seconds = (2, 1) if given.quick else (given.rounds, given.seconds)
    return Turns(rounds, seconds, given.quick)
