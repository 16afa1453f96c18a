"""The input of a batch: one request per line, in OpenAI's format."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hubgate.features.bulk.batches.model import Fault

MAX_FAULTS = 100
"""How many invalid lines are reported."""
MAX_ROWS = 1_000_000
_MAX_ID = 512
_SHOWN = 80
_READ_ROWS, _READ_BYTES = 256, 1024 * 1024
"""How much of the input is read at a time."""
_NOT_JSON = "The line is not valid JSON."


class Line(msgspec.Struct):
    """A line of the input. Other fields are ignored."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Fields(msgspec.Struct):
    model: Any = None
    stream: Any = None


class Row(NamedTuple):
    """A request."""

    number: int
    """Its line, from 1."""
    custom_id: str
    body: bytes


class Checked(NamedTuple):
    """What a whole input contains."""

    total: int
    last: int
    """The number of its last line."""
    model: str | None
    faults: list[Fault]


_LINE = msgspec.json.Decoder(Line)
_FIELDS = msgspec.json.Decoder(_Fields)


class _Invalid(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__()
        self.code, self.message, self.param = code, message, param


def read_rows(path: Path, max_bytes: int) -> Iterator[Row]:
    """The requests of a valid input, which is read a line at a time.

    Args:
        path: of the file.
        max_bytes: of a line.
    """
    for number, line in _lines(path, max_bytes):
        found = _LINE.decode(line)
        yield Row(number, found.custom_id, bytes(found.body))


def read_some(rows: Iterator[Row]) -> list[Row]:
    """The next requests: a few large ones or many small ones."""
    some, size = [], 0
    for row in islice(rows, _READ_ROWS):
        some.append(row)
        size += len(row.body)
        if size >= _READ_BYTES:
            break
    return some


def first_url(path: Path, max_bytes: int) -> str | None:
    """Where the first request goes; `None` if its line is not a request."""
    for _, line in _lines(path, max_bytes):
        try:
            return _LINE.decode(line).url
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
    return None


def check_rows(path: Path, url: str, max_bytes: int) -> Checked:
    """Read a whole input and check that every line is a request to `url`. Keeps 16 bytes of each line."""
    check = _Check(url, max_bytes)
    faults: list[Fault] = []
    last = 0
    for number, line in _lines(path, max_bytes):
        last = number
        try:
            check(line)
        except _Invalid as fault:
            faults.append(Fault(code=fault.code, message=fault.message, line=number, param=fault.param))
            if len(faults) == MAX_FAULTS or check.total > MAX_ROWS:
                break
    if not check.total:
        faults.append(Fault(code="empty_file", message="The input file has no requests."))
    return Checked(check.total, last, check.model, faults)


def _lines(path: Path, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, with their numbers. A line that is too long is cut, and so invalid."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(max_bytes + 2):
            number += 1
            is_whole = line.endswith(b"\n") or len(line) <= max_bytes
            while not is_whole and (rest := file.readline(max_bytes)):
                is_whole = rest.endswith(b"\n")
            if line.strip():
                yield number, line


class _Check:
    """Checks the lines of one input in turn."""

    def __init__(self, url: str, max_bytes: int) -> None:
        self._url = url
        self._max_bytes = max_bytes
        self._seen: set[bytes] = set()
        self.total = 0
        self.model: str | None = None

    def __call__(self, line: bytes) -> None:
        """Raises: _Invalid: the line is not a request that the batch can send."""
        self.total += 1
        if self.total > MAX_ROWS:
            raise _Invalid("too_many_requests", f"A batch has at most {MAX_ROWS} requests.")
        found = self._decode(line)
        self._check_id(found.custom_id)
        if found.method != "POST":
            raise _Invalid("invalid_method", "method must be POST.", "method")
        if found.url != self._url:
            shown = ascii(found.url[:_SHOWN])
            message = f"url must be the endpoint of the batch, {self._url}, not {shown}."
            raise _Invalid("mismatched_url", message, "url")
        try:
            fields = _FIELDS.decode(found.body)
        except msgspec.ValidationError:
            raise _Invalid("invalid_body", "body must be an object.", "body") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _Invalid("invalid_json_line", _NOT_JSON) from None
        if fields.stream:
            raise _Invalid("stream_not_supported", "body.stream must be false in a batch.", "body.stream")
        if self.model is None and isinstance(fields.model, str):
            self.model = fields.model

    def _decode(self, line: bytes) -> Line:
        if len(line.rstrip(b"\r\n")) > self._max_bytes:
            raise _Invalid("line_too_long", f"The line is longer than {self._max_bytes} bytes.")
        try:
            return _LINE.decode(line)
        except msgspec.ValidationError as error:
            raise _Invalid("invalid_request", f"The line is not a request: {error}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _Invalid("invalid_json_line", _NOT_JSON) from None

    def _check_id(self, custom_id: str) -> None:
        if not 0 < len(custom_id) <= _MAX_ID:
            raise _Invalid(
                "invalid_custom_id", f"custom_id must have 1 to {_MAX_ID} characters.", "custom_id"
            )
        digest = blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._seen:
            message = f"An earlier line has the custom_id {custom_id[:_SHOWN]!a}, too."
            raise _Invalid("duplicate_custom_id", message, "custom_id")
        self._seen.add(digest)
