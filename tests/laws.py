"""How many examples a costly law is tried with. `make test-slow` sets `LAW_TIMES`, to try many more."""

from __future__ import annotations

import os


def examples(number: int) -> int:
    """The examples of a law in this run, for `settings(max_examples=…)`."""
    return number * int(os.environ.get("LAW_TIMES", "1"))
