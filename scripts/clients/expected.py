"""What client scripts share: the gateway, its key, and the expected vectors. Standard library only."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

URL = os.environ["HUBGATE_URL"]
KEY = os.environ["HUBGATE_KEY"]
HEADERS = {"Authorization": f"Bearer {KEY}"}
RANKER_KEY = os.environ["HUBGATE_RANKER_KEY"]
"""A key whose default endpoint ranks."""
SPENT_KEY = os.environ["HUBGATE_SPENT_KEY"]
"""A key that may make one call a minute. Each client has one of its own."""
PROMPT, SAID = "good morning", "You said: good morning"
"""What endpoint llm makes of a prompt."""
_GIVEN = json.loads(Path(os.environ["HUBGATE_EXPECTED"]).read_text(encoding="utf-8"))
TEXTS: list[str] = _GIVEN["texts"]
ENDPOINTS: list[str] = list(_GIVEN["vectors"])


def check_same(endpoint: str, vectors: Iterable[Iterable[float]], what: str) -> None:
    """Compare with what the gateway answered over plain HTTP.

    The tolerance is that of the local model: a text alone and the same text in a batch differ in the last bits.
    """
    expected: Sequence[Sequence[float]] = _GIVEN["vectors"][endpoint]
    got = [list(vector) for vector in vectors]
    assert len(got) == len(expected), f"{what}: {len(got)} vectors, not {len(expected)}"
    for one, other in zip(got, expected, strict=True):
        assert len(one) == len(other), f"{what}: {len(one)} dimensions, not {len(other)}"
        assert all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6) for a, b in zip(one, other, strict=True)), (
            what
        )
    passed(f"{what} [{endpoint}]")


def check_refused(ask: Callable[[], object], kind: type[Exception], words: str) -> None:
    """See that the client raises its own error, and shows our words."""
    try:
        ask()
    except kind as error:
        told = str(error)
    else:
        raise AssertionError(f"{words}: it was not refused")
    assert words in told, told
    passed(f"its error shows: {words}")


def check_text(told: str | None, what: str) -> None:
    """Compare with what the model says to the prompt."""
    assert told == SAID, f"{what}: {told!r}"
    passed(what)


def passed(what: str) -> None:
    """Say that something was checked."""
    print("ok:", what)


def version_of(*packages: str) -> None:
    """Say what was tried."""
    print("version:", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages))
