"""The values that a job handles, and its ports: the source of rows, the embedder, and the sink for vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol, TypeAlias, TypeGuard

import msgspec

from hubgate.core.quantization import quantized_length
from hubgate.domain.endpoint import OutputDtype
from hubgate.domain.errors import HubgateError

Id: TypeAlias = int | str


class RowFault(StrEnum):
    """Why a row of the input cannot be sent. The file of failed rows has these and the causes of hubgate's errors."""

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
    """The job cannot continue. Finished shards are kept, and the same command continues from them."""


class Columns(NamedTuple):
    """The fields of the input that a job reads."""

    text: str = "text"
    id: str | None = None
    """`None`: the row's number is its id."""
    keep: tuple[str, ...] = ()
    """Further fields to copy to the output."""


class Row(NamedTuple):
    """A row whose text can be sent."""

    number: int
    """Position in the input, from 0."""
    id: Id
    text: str
    kept: tuple[Any, ...] = ()
    """The values of `Columns.keep`, in that order."""


class FailedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row without a vector: a line of the file of failed rows."""

    row: int
    id: Id | None
    cause: str
    message: str


class Shard(NamedTuple):
    """A run of rows that is sent in one request."""

    number: int
    rows: Sequence[Row]
    failed: Sequence[FailedRow]
    digest: str
    """Of all its rows, to notice an input that has changed."""

    @property
    def size(self) -> int:
        """The number of rows, with those that failed."""
        return len(self.rows) + len(self.failed)


class Piece(msgspec.Struct, frozen=True, gc=False, rename={"vector": "embedding"}):
    """A vector of the job's type, and the part of the text that it is for, from `start` to `end` in code points.

    The fields have the names of the API's reply, so that decoding creates one object per vector.
    """

    vector: bytes = b""
    tokens: int | None = None
    start: int = 0
    end: int = 0
    text: str = ""
    """Empty if the text was not chunked."""
    tokens_unread: int | None = None
    """Tokens beyond the model's limit, in no vector; `None` if unknown."""


class Embedded(NamedTuple):
    """Vectors and their rows, in two columns: a row is repeated for each of its vectors."""

    rows: list[Row]
    pieces: list[Piece]


class Reply(NamedTuple):
    """The vectors of some texts, in the order of the texts."""

    pieces: Sequence[Piece]
    tokens: int
    exact: bool
    counts: Sequence[int] | None = None
    """The number of pieces per text; `None`: one each."""


class ByteRange(NamedTuple):
    """Where the vectors of a shard are in the shard file."""

    offset: int
    size: int


class Layout(NamedTuple):
    """The columns of the output."""

    dimensions: int
    """Of the model's vectors."""
    chunked: bool = False
    ids: Literal["int", "text"] = "int"
    kept: Mapping[str, Any] = {}
    """The copied columns with their Arrow types; `None` if the input has no types."""
    dtype: OutputDtype = OutputDtype.FLOAT

    @property
    def length(self) -> int:
        """How many numbers a vector has."""
        return quantized_length(self.dimensions, self.dtype)

    @property
    def number_bytes(self) -> int:
        return 4 if self.dtype is OutputDtype.FLOAT else 1


class Source(Protocol):
    """Reads the rows of an input. Used by one thread at a time."""

    @property
    def layout(self) -> tuple[Literal["int", "text"], Mapping[str, Any]]:
        """`Layout.ids` and `Layout.kept`."""
        ...

    @property
    def expected_rows(self) -> int | None:
        """The number of rows, as far as it is known by now."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """Facts by which this input is recognised on another day."""
        ...

    def rows(self) -> Iterator[Row | FailedRow]:
        """All rows in order, the same each time."""
        ...

    def check(self) -> None:
        """Check that the input has not changed since it was opened.

        Raises:
            JobStopped: it has.
        """
        ...


class Embedder(Protocol):
    """Turns texts into vectors."""

    async def __call__(self, texts: Sequence[str]) -> Reply:
        """Embed some texts in one request.

        Raises:
            HubgateError: the request failed; `cause` and `retryable` decide what happens next.
        """
        ...

    async def model(self) -> Mapping[str, Any]:
        """The facts that must be equal for all vectors of one file, `dimensions` among them.

        Raises:
            HubgateError: the request failed.
        """
        ...


class Sink(Protocol):
    """A format of the output. Used by one thread at a time."""

    def encode(self, shard: Embedded) -> bytes | memoryview:
        """The form in which a shard's vectors are kept until all shards are done."""
        ...

    def write(self, file: BinaryIO, shards: Iterable[bytes]) -> None:
        """Write the output from encoded shards, holding only a few at a time.

        Raises:
            OSError: the file cannot be written.
        """
        ...


def chunk_numbers(rows: Iterable[Row]) -> Iterator[int]:
    """For each row of an `Embedded`: the number of its chunk within the row's text, from 0."""
    number, previous = 0, None
    for row in rows:
        number = number + 1 if row is previous else 0
        previous = row
        yield number


def is_id(value: object) -> TypeGuard[Id]:
    """Whether a value can be a row's id. A bool cannot, although it is an int to Python."""
    return type(value) is int or type(value) is str


def make_row(number: int, row_id: Any, text: Any, kept: tuple[Any, ...] = ()) -> Row | FailedRow:
    """A row from the values that were read, or why it failed."""
    if not is_id(row_id):
        what = (
            "has no id"
            if row_id is None
            else f"has an id that is neither a number nor a string: {row_id!r:.60}"
        )
        return FailedRow(row=number, id=None, cause=RowFault.NO_ID, message=f"The row {what}.")
    if type(text) is str and text:
        return Row(number, row_id, text, kept)
    if text is None:
        cause, message = RowFault.NULL_TEXT, "The text is null."
    elif text == "":
        cause, message = RowFault.EMPTY_TEXT, "The text is empty."
    else:
        cause, message = RowFault.NOT_A_TEXT, f"The text is not a string: {text!r:.60}"
    return FailedRow(row=number, id=row_id, cause=cause, message=message)
