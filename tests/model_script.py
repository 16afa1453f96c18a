"""An embedder that replies by script: what jobs do with each possible reply, without a gateway."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hubgate.domain.errors import Cause, HubgateError
from hubgate.features.bulk.engine.manifest import Totals
from hubgate.features.bulk.engine.rows import Piece, Reply
from hubgate.features.bulk.engine.runner import Progress
from hubgate.features.bulk.folder import RunOptions, Task
from hubgate.features.bulk.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def vector(text: str) -> bytes:
    """Three numbers that differ between texts."""
    return struct.pack("<3f", len(text), ord(text[0]), ord(text[-1]))


def one_each(texts: Sequence[str]) -> Reply:
    """A vector a text, and a token a word."""
    counts = [len(text.split()) for text in texts]
    pieces = [Piece(vector(text), count) for text, count in zip(texts, counts, strict=True)]
    return Reply(pieces, sum(counts), exact=True)


def refused(cause: Cause, *, retryable: bool = False, retry_after: float | None = None) -> HubgateError:
    """An error of the gateway."""
    return HubgateError(f"It is {cause}.", cause=cause, retryable=retryable, retry_after=retry_after)


@dataclass
class Script:
    """An embedder. `answer` may be replaced at any time; it may raise."""

    answer: Callable[[Sequence[str]], Reply] = one_each
    facts: dict[str, Any] = field(default_factory=lambda: {"model": "org/model", "dimensions": 3})
    asked: list[Sequence[str]] = field(default_factory=list)

    async def __call__(self, texts: Sequence[str]) -> Reply:
        self.asked.append(texts)
        return self.answer(texts)

    async def model(self) -> dict[str, Any]:
        return self.facts


def task(source: Path, output: Path, **fields: Any) -> Task:
    """A task of two rows a request."""
    return Task(
        **{
            "input": str(source),
            "output": str(output),
            "endpoint": "e5",
            "rows_per_request": 2,
            **fields,
        }
    )


async def run(
    what: Task, script: Script, *, overwrite: bool = False, patience: float = 600.0, concurrency: int = 2
) -> Totals | None:
    """Run a task as the command does; the totals, or `None` if it was already done."""
    job = Job(what, RunOptions(concurrency=concurrency), overwrite=overwrite, patience=patience)
    job.check()
    with job.folder.locked():
        source, done = job.open()
        if done:
            return None
        await job.run(source, script, Progress(Totals()))
    return job.folder.totals()
