"""Splits: the rows that one Ray task embeds, and how it reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from hubgate.features.bulk.engine.rows import Columns, FailedRow, Row
from hubgate.features.bulk.formats.formats import JSONL, PARQUET
from hubgate.features.bulk.formats.inputs import input_changed, unusable_input
from hubgate.features.bulk.formats.jsonl import LineReader, jsonl_layout
from hubgate.features.bulk.formats.parquet import ParquetTable
from hubgate.features.bulk.ray.storage import (
    InputFile,
    describe,
    list_inputs,
    locate,
    open_input,
    reports_unreadable,
)

SourceLayout: TypeAlias = tuple[Literal["int", "text"], Mapping[str, Any]]
_SCANS_AT_ONCE = 16


class Split(msgspec.Struct, frozen=True):
    """A run of rows of one file."""

    first: int
    """The number of its first row, in the whole input."""
    rows: int
    """In JSON lines, with empty lines."""
    file: int
    """The position of its file in the input."""
    start: int
    """Where it begins: the row of a Parquet file, the byte of a file of JSON lines."""


class _Scan(NamedTuple):
    rows: int
    starts: Sequence[int]
    """`Split.start` of each split."""
    layout: SourceLayout


def plan_splits(place: str, columns: Columns, rows: int) -> tuple[list[InputFile], list[Split]]:
    """The files of an input, cut into splits of at most this number of rows.

    Raises:
        JobStopped: the input cannot be used.
    """
    files = list_inputs(place)
    if len({_is_parquet(file) for file in files}) > 1:
        raise unusable_input(f"{place} has Parquet files and JSON lines.", "Use one of them in a job.")
    with ThreadPoolExecutor(_SCANS_AT_ONCE) as threads:
        scans = list(threads.map(partial(_scan, columns=columns, rows=rows), files))
    splits, before = [], 0
    for number, (file, scan) in enumerate(zip(files, scans, strict=True)):
        if scan.layout != scans[0].layout:
            raise unusable_input(
                f"{file.uri} and {files[0].uri} have different types in the columns of the id or to keep.",
                "Write them with the same types, or run a job for each.",
            )
        for index, start in enumerate(scan.starts):
            size = min(rows, scan.rows - index * rows)
            splits.append(Split(before + index * rows, size, number, start))
        before += scan.rows
    return files, splits


def _scan(file: InputFile, columns: Columns, rows: int) -> _Scan:
    if _is_parquet(file):
        table = _table(file, columns)
        return _Scan(table.size, range(0, table.size, rows), table.layout)
    reader = LineReader(columns)
    with reports_unreadable(file.uri):
        with open_input(file.uri) as content:
            reader.check_fields(content, file.uri)
        starts, offset, count = [], 0, 0
        with open_input(file.uri) as content:
            for _, length in reader.lines(content):
                if count % rows == 0:
                    starts.append(offset)
                count += 1
                offset += length
    return _Scan(count, starts, jsonl_layout(columns))


class SplitSource:
    """The rows of a split; a `Source`."""

    def __init__(self, file: InputFile, split: Split, columns: Columns) -> None:
        self._file = file
        self._split = split
        self._columns = columns
        self._table = _table(file, columns) if _is_parquet(file) else None

    @property
    def layout(self) -> SourceLayout:
        return jsonl_layout(self._columns) if self._table is None else self._table.layout

    @property
    def expected_rows(self) -> int | None:
        return self._split.rows

    def identity(self) -> Mapping[str, Any]:
        return msgspec.structs.asdict(self._file)

    def rows(self) -> Iterator[Row | FailedRow]:
        first, rows, _, start = msgspec.structs.astuple(self._split)
        if self._table is not None:
            yield from self._table.rows(start, start + rows, before=first - start)
            return
        reader = LineReader(self._columns)
        with open_input(self._file.uri, start) as content:
            for number, (line, _) in enumerate(islice(reader.lines(content), rows), first):
                if (row := reader.row(number, line)) is not None:
                    yield row

    def check(self) -> None:
        """Does nothing: the file is checked once, by `check_unchanged`."""

    def check_unchanged(self) -> None:
        """Check that the file is the one that the job started with.

        Raises:
            JobStopped: it is not.
        """
        if describe(self._file) != self._file:
            raise input_changed(f"{self._file.uri} is not the file it was when the job started")


def _table(file: InputFile, columns: Columns) -> ParquetTable:
    filesystem, path = locate(file.uri)
    return ParquetTable(file.uri, path, columns, filesystem)


def _is_parquet(file: InputFile) -> bool:
    suffix = PurePosixPath(file.uri).suffix.lower()
    if suffix not in PARQUET | JSONL:
        known = ", ".join(sorted(PARQUET | JSONL))
        raise unusable_input(
            f"The format of the input {file.uri} is unknown.",
            f"Name files that end in one of {known}, such as s3://bucket/folder/*.parquet.",
        )
    return suffix in PARQUET
