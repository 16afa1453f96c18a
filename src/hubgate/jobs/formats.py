"""Which source reads an input and which sink writes an output: told by the name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hubgate.jobs.inputs import unusable_input
from hubgate.jobs.jsonl import JsonlSink, JsonlSource
from hubgate.jobs.parts import Parts
from hubgate.jobs.rows import Columns, JobStopped, Layout, Sink, Source
from hubgate.jobs.text_folder import TextFolder

PARQUET = frozenset({".parquet", ".pq"})
JSONL = frozenset({".jsonl", ".ndjson"})
_RESERVED = frozenset({"id", "embedding", "tokens", "tokens_unread"})
_RESERVED_OF_CHUNKS = frozenset({"chunk", "start", "end", "text"})


def open_source(path: Path, columns: Columns) -> Source:
    """The source of an input.

    Raises:
        JobStopped: there is none, or it cannot be read as what it is.
    """
    if path.is_dir():
        if columns.id is not None or columns.keep:
            raise unusable_input("A file in a folder has no fields: leave out --id-field and --keep.")
        return TextFolder(path)
    suffix = path.suffix.lower()
    if suffix in JSONL:
        return JsonlSource(path, columns)
    if suffix in PARQUET:
        _need_pyarrow()
        from hubgate.jobs.parquet import ParquetSource  # noqa: PLC0415 - an extra

        return ParquetSource(path, columns)
    raise _unknown("input", path, " or be a folder of texts")


def check_output(path: Path, columns: Columns, *, chunked: bool) -> None:
    """Look whether an output can be written, before anything is asked.

    Raises:
        JobStopped: its name tells no format, pyarrow is missing, its folder is, or a column would stand in it twice.
    """
    suffix = path.suffix.lower()
    if suffix not in PARQUET | JSONL:
        raise _unknown("output", path)
    if suffix in PARQUET:
        _need_pyarrow()
    if not path.parent.is_dir():
        raise unusable_input(
            f"The folder {path.parent} does not exist.", "Make it, or choose another output."
        )
    taken = _RESERVED | _RESERVED_OF_CHUNKS if chunked else _RESERVED
    if twice := sorted(taken.intersection(columns.keep)):
        raise unusable_input(
            f"The output has a column [{twice[0]}] of its own.",
            f"Leave out --keep {twice[0]}, or rename the field.",
        )


def open_sink(output: Path, parts: Path, layout: Layout) -> Sink:
    """The sink of an output that was checked; its parts are kept in a folder until they are joined."""
    if output.suffix.lower() in JSONL:
        return JsonlSink(Parts(parts, ".jsonl"), output, layout)
    from hubgate.jobs.parquet import ParquetSink  # noqa: PLC0415 - an extra

    return ParquetSink(Parts(parts, ".arrow"), output, layout)


def _unknown(what: str, path: Path, other: str = "") -> JobStopped:
    known = ", ".join(sorted(PARQUET | JSONL))
    return unusable_input(
        f"The {what} {path} is of no format that is known.", f"Its name must end in one of {known}{other}."
    )


def _need_pyarrow() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise unusable_input(
            "Parquet needs pyarrow, which is not installed.",
            "Install hubgate[bulk] (pip install 'hubgate[bulk]'), or use JSON lines.",
        )
