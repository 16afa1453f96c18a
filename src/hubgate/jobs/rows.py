"""What a job handles, as values, and its ports: where rows come from, who embeds them, where vectors go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeGuard

import msgspec

from hubgate.domain.errors import HubgateError

Id: TypeAlias = int | str


class RowFault(StrEnum):
    """Why a row of the input cannot be asked; the gate's own causes stand beside these in the file of failed rows."""

    NO_TEXT = "no_text"
    NULL_TEXT = "null_text"
    EMPTY_TEXT = "empty_text"
    NOT_A_TEXT = "not_a_text"
    NO_ID = "no_id"
    NOT_JSON = "not_json"
    NOT_UTF8 = "not_utf8"
    TOO_LONG = "too_long"
    UNREADABLE = "unreadable"
    FILE_CHANGED = "file_changed"


class JobStopped(HubgateError):
    """The job cannot go on. What is done stays done, and the same command goes on from there."""


class Columns(NamedTuple):
    """Which fields of the input are what."""

    text: str = "text"
    id: str | None = None
    """`None` takes the number of the row."""
    keep: tuple[str, ...] = ()


class Row(NamedTuple):
    """A row that can be asked."""

    number: int
    """Its place in the input, from 0."""
    id: Id
    text: str
    kept: tuple[Any, ...] = ()
    """The values of the columns to keep, in their order."""


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A row without a vector: a line of the file of failed rows."""

    row: int
    id: Id | None
    cause: str
    message: str


class Shard(NamedTuple):
    """A run of rows that is asked in one request."""

    number: int
    rows: Sequence[Row]
    failed: Sequence[Failed]
    digest: str
    """Of the rows, so that the same input can be told from another one."""

    @property
    def size(self) -> int:
        """How many rows it has, the failed ones among them."""
        return len(self.rows) + len(self.failed)


class Piece(msgspec.Struct, frozen=True, gc=False, rename={"vector": "embedding"}):
    """A vector, f32, and of which part of the text: code points, of a text that was not cut all of it.

    Its fields are spelled as in an answer, from which it is read as it is: a job makes one object a vector.
    """

    vector: bytes = b""
    tokens: int | None = None
    start: int = 0
    end: int = 0
    text: str = ""
    """Only of a text that was cut."""
    tokens_unread: int | None = None
    """Tokens that the model did not read, because the text is longer than it reads; `None` where nobody knows."""


class Embedded(NamedTuple):
    """Vectors, and whose they are, as two columns: a row stands as often as it has vectors."""

    rows: list[Row]
    pieces: list[Piece]


class Reply(NamedTuple):
    """What came back for some texts, in their order."""

    pieces: Sequence[Piece]
    tokens: int
    exact: bool
    counts: Sequence[int] | None = None
    """How many pieces each text has; one, if it is `None`."""


class Part(NamedTuple):
    """Where the vectors of a shard stand until they are joined: bytes of the file of the parts."""

    place: int
    size: int


class Layout(NamedTuple):
    """What the output looks like."""

    dimensions: int
    chunked: bool = False
    ids: Literal["int", "text"] = "int"
    kept: Mapping[str, Any] = {}
    """The columns that are kept: their Arrow types, `None` where the input has none."""


class Source(Protocol):
    """Where rows come from. Read by one thread at a time."""

    @property
    def layout(self) -> tuple[Literal["int", "text"], Mapping[str, Any]]:
        """What its ids are, and the columns that are kept; see `Layout`."""
        ...

    @property
    def expected_rows(self) -> int | None:
        """How many rows there are, as far as it can be told by now."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """What makes this input the same one on another day."""
        ...

    def rows(self) -> Iterator[Row | Failed]:
        """All rows in their order, the same ones each time."""
        ...

    def check(self) -> None:
        """Look whether the input is still the one that was opened.

        Raises:
            JobStopped: it is not.
        """
        ...


class Embedder(Protocol):
    """Who turns texts into vectors."""

    async def __call__(self, texts: Sequence[str]) -> Reply:
        """The vectors of some texts, in one request.

        Raises:
            HubgateError: there are none; its `cause` and `retryable` decide what is done.
        """
        ...

    async def model(self) -> Mapping[str, Any]:
        """What makes the vectors what they are: equal as long as they may stand in one file. Has `dimensions`.

        Raises:
            HubgateError: it cannot be asked.
        """
        ...


class Sink(Protocol):
    """Where vectors go. One thread writes parts, and another may join those that are there."""

    def write(self, shards: Iterable[Embedded]) -> Sequence[Part]:
        """Write the part of each shard; they are on disk when this returns.

        Raises:
            OSError: they cannot be written; none of them is there then.
        """
        ...

    def has(self, part: Part) -> bool:
        """Whether the part is there."""
        ...

    def publish(self, parts: Iterable[Part]) -> None:
        """Make the output of these parts, in this order, whole and on disk when this returns.

        Args:
            parts: the next one may be waited for. If it raises, nothing is published.

        Raises:
            OSError: it cannot be written; nothing changed then.
        """
        ...


def places(rows: Iterable[Row]) -> Iterator[int]:
    """Of a column of rows which of its row's pieces each is, from 0."""
    place, before = 0, None
    for row in rows:
        place = place + 1 if row is before else 0
        before = row
        yield place


def is_id(value: object) -> TypeGuard[Id]:
    """Whether a value may name a row; a truth value, which Python counts among the numbers, may not."""
    return type(value) is int or type(value) is str


def read_row(number: int, row_id: Any, text: Any, kept: tuple[Any, ...] = ()) -> Row | Failed:
    """A row as it was read, if it can be asked."""
    if not is_id(row_id):
        what = (
            "has no id"
            if row_id is None
            else f"has an id that is neither a number nor a text: {row_id!r:.60}"
        )
        return Failed(row=number, id=None, cause=RowFault.NO_ID, message=f"The row {what}.")
    if type(text) is str and text:
        return Row(number, row_id, text, kept)
    if text is None:
        cause, message = RowFault.NULL_TEXT, "The text is null."
    elif text == "":
        cause, message = RowFault.EMPTY_TEXT, "The text is empty."
    else:
        cause, message = RowFault.NOT_A_TEXT, f"The text is no text: {text!r:.60}"
    return Failed(row=number, id=row_id, cause=cause, message=message)
