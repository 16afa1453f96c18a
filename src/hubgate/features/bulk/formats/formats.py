"""The formats of inputs and outputs, chosen by file name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hubgate.features.bulk.engine.rows import Columns, JobStopped, Layout, Sink, Source
from hubgate.features.bulk.formats.inputs import unusable_input
from hubgate.features.bulk.formats.jsonl import JsonlSink, JsonlSource
from hubgate.features.bulk.formats.text_folder import TextFolder

PARQUET = frozenset({".parquet", ".pq"})
JSONL = frozenset({".jsonl", ".ndjson"})
_OUTPUT_COLUMNS = frozenset({"id", "embedding", "tokens", "tokens_unread"})
_CHUNK_COLUMNS = frozenset({"chunk", "start", "end", "text"})


def open_source(path: Path, columns: Columns) -> Source:
    """Open an input: a file of JSON lines or Parquet, or a folder of texts.

    Raises:
        JobStopped: its format is unknown, or it cannot be read.
    """
    if path.is_dir():
        if columns.id is not None or columns.keep:
            raise unusable_input("Files in a folder have no fields: remove --id-field and --keep.")
        return TextFolder(path)
    suffix = path.suffix.lower()
    if suffix in JSONL:
        return JsonlSource(path, columns)
    if suffix in PARQUET:
        _require_pyarrow()
        from hubgate.features.bulk.formats.parquet import ParquetSource  # noqa: PLC0415 - an optional dependency

        return ParquetSource(path, columns)
    raise _unknown_format("input", path, ", or it must be a folder of texts")


def check_output(path: Path, columns: Columns, *, chunked: bool) -> None:
    """Check that an output can be written, before the first request.

    Raises:
        JobStopped: the format is unknown, pyarrow or the folder is missing, or a column name would be used twice.
    """
    suffix = path.suffix.lower()
    if suffix not in PARQUET | JSONL:
        raise _unknown_format("output", path)
    if suffix in PARQUET:
        _require_pyarrow()
    if not path.parent.is_dir():
        raise unusable_input(
            f"The folder {path.parent} does not exist.", "Create it, or choose another output."
        )
    check_kept(columns, chunked=chunked)


def check_kept(columns: Columns, *, chunked: bool) -> None:
    """Check that no field to copy has the name of a column of the output.

    Raises:
        JobStopped: one has.
    """
    reserved = _OUTPUT_COLUMNS | _CHUNK_COLUMNS if chunked else _OUTPUT_COLUMNS
    if duplicates := sorted(reserved.intersection(columns.keep)):
        raise unusable_input(
            f"The output has its own column [{duplicates[0]}].",
            f"Remove --keep {duplicates[0]}, or rename the field.",
        )


def make_sink(output: Path, layout: Layout) -> Sink:
    """The sink for an output that passed `check_output`."""
    if output.suffix.lower() in JSONL:
        return JsonlSink(layout)
    from hubgate.features.bulk.formats.parquet import ParquetSink  # noqa: PLC0415 - an optional dependency

    return ParquetSink(layout)


def _unknown_format(role: str, path: Path, alternative: str = "") -> JobStopped:
    known = ", ".join(sorted(PARQUET | JSONL))
    return unusable_input(
        f"The format of the {role} {path} is unknown.", f"Its name must end in one of {known}{alternative}."
    )


def _require_pyarrow() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise unusable_input(
            "Parquet needs pyarrow, which is not installed.",
            "Install hubgate[bulk] (pip install 'hubgate[bulk]'), or use JSON lines.",
        )
