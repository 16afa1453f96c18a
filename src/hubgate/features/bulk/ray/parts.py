"""Parts: the files of the output, each with the vectors and the record of one split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryFile

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from hubgate.domain.errors import Cause
from hubgate.features.bulk.engine.manifest import Totals
from hubgate.features.bulk.engine.rows import FailedRow, JobStopped
from hubgate.features.bulk.formats.parquet import ParquetSink
from hubgate.features.bulk.ray.splits import Split
from hubgate.features.bulk.ray.storage import OutputFolder, first_line

_RECORD = b"hubgate"
_READS_AT_ONCE = 32


class PartRecord(msgspec.Struct, frozen=True):
    """What a part says about itself, in the metadata of its file."""

    totals: Totals
    failed: list[FailedRow] = []
    """In the order of the input."""


# Made once: msgspec crashes when several threads are the first to decode a type.
_READER = msgspec.json.Decoder(PartRecord)


def part_name(split: Split) -> str:
    """The name of a split's part. In the order of their names, parts have the order of the input."""
    return f"part-{split.first:012}.parquet"


def encode_part(sink: ParquetSink, shards: Iterable[bytes | memoryview], record: PartRecord) -> bytes:
    """The content of a part from the encoded shards of its split, in order."""
    with TemporaryFile() as content:
        sink.write(content, shards, {_RECORD: msgspec.json.encode(record)})
        content.seek(0)
        return content.read()


def read_record(folder: OutputFolder, name: str) -> PartRecord:
    """The record of a part.

    Raises:
        JobStopped: it cannot be read.
    """
    try:
        with folder.open(name) as file:
            metadata = pq.read_metadata(file).metadata or {}
        return _READER.decode(metadata[_RECORD])
    except (pa.ArrowException, OSError, KeyError, msgspec.MsgspecError) as error:
        raise JobStopped(
            f"{folder.place}/{name} is not a valid part: {first_line(error)}.",
            remedy="Delete it, and run the same command again.",
            cause=Cause.STORE_FAILED,
        ) from error


def read_records(folder: OutputFolder, names: Iterable[str]) -> Iterator[PartRecord]:
    """The records of parts, in the order of the names."""
    with ThreadPoolExecutor(_READS_AT_ONCE) as threads:
        yield from threads.map(lambda name: read_record(folder, name), names)
