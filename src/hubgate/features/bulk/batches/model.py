"""Batches of OpenAI's API: files of requests that the gateway answers in the background.

Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec


class Purpose(StrEnum):
    """What a file is for: OpenAI's names."""

    BATCH = "batch"
    BATCH_OUTPUT = "batch_output"


class BatchStatus(StrEnum):
    """OpenAI's names. `cancelling` is not stored: it is an unfinished batch with `Batch.cancel_at`."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


UNFINISHED = frozenset(
    {BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING}
)


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file in the folder for files; its content is on disk."""

    id: str
    key: str
    """The id of the gateway key that it belongs to."""
    folder: str
    """The id of the folder that has its content."""
    name: str
    purpose: Purpose
    size: int
    created_at: float
    expires_at: float


class Held(NamedTuple):
    """What a key has in the folder for files."""

    files: int
    bytes: int


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Why a batch failed or ended early."""

    code: str
    message: str
    line: int | None = None
    """Of the input, from 1."""
    param: str | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as stored."""

    id: str
    key: str
    """The id of the gateway key that created it, and whose rights and limits apply."""
    folder: str
    """The id of the folder that has its files: only gateways with this folder can run it."""
    path: str
    """Where its requests go, such as `/v1/embeddings`."""
    input_file: str
    window: str
    """The completion window as requested, such as `24h`."""
    created_at: float
    expires_at: float
    output_seconds: float | None = None
    """How long its output is kept; `None` for the gateway's setting."""
    metadata: Mapping[str, str] | None = None
    status: BatchStatus = BatchStatus.VALIDATING
    model: str | None = None
    """Of the first request."""
    faults: tuple[Fault, ...] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file: str | None = None
    error_file: str | None = None
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    ended_at: float | None = None
    rate: float = 0.0
    """Answered requests per second in the last minute."""
    waiting_for: str = ""
    """Why requests are not answered at the moment."""
    run: int = 0
    """How often a gateway has taken it up."""
    cancel_at: float | None = None
    """When its cancellation was requested."""
    notify_at: float | None = None
    """When to send its webhook; `None` if there is nothing to send."""
    notified: int = 0
    """Attempts to send the webhook."""
    record: int = 0
    """The run whose files the next run continues, if the last run gave the batch back; else 0."""
    unclean: int = 0
    """How many gateways in a row were killed while they worked on it."""

    @property
    def shown_status(self) -> BatchStatus:
        is_cancelling = self.status in UNFINISHED and self.cancel_at is not None
        return BatchStatus.CANCELLING if is_cancelling else self.status

    @property
    def is_finished(self) -> bool:
        return self.status not in UNFINISHED

    @property
    def remaining_seconds(self) -> float | None:
        """At the current rate; `None` if unknown."""
        left = self.total - self.completed - self.failed
        return left / self.rate if self.status is BatchStatus.IN_PROGRESS and self.rate else None


class Page(NamedTuple):
    """Which part of a list to return."""

    limit: int
    after: str | None = None
    """The id of the last item of the page before."""
    oldest_first: bool = False


class StoredObject(NamedTuple):
    """An object of an object store."""

    name: str
    size: int
    changed_at: float


class Objects(Protocol):
    """An object store for the content of files. All methods do blocking I/O and raise `OSError`."""

    def create(self, name: str, content: bytes) -> bytes:
        """Create an object unless it exists; returns what it contains."""
        ...

    def put(self, name: str, content: Path | bytes) -> None:
        """Create or replace an object."""
        ...

    def get(self, name: str) -> Iterator[bytes]:
        """The content of an object, in pieces. Raises: FileNotFoundError."""
        ...

    def list(self, folder: str | None = None) -> Sequence[StoredObject]:
        """All objects, or those whose names begin with `folder/`."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects, if they exist."""
        ...


class Turns(NamedTuple):
    """Batches of one key that need work."""

    held: int
    """How many a gateway is working on."""
    waiting: int


class ClaimLost(Exception):
    """Another gateway has taken up the batch."""
