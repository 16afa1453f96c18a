"""The output formats, and the files on disk during a job."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hubgate.domain.endpoint import OutputDtype
from hubgate.features.bulk.engine.manifest import Manifest, Record, read_totals
from hubgate.features.bulk.engine.rows import ByteRange, Embedded, FailedRow, Layout, Piece, Row
from hubgate.features.bulk.engine.shards import ShardFile
from hubgate.features.bulk.formats.formats import make_sink
from hubgate.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def numbers(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


WHOLE = Embedded([Row(0, "a", "hello", (1,))], [Piece(numbers(1, 2), 3)])
UNTOLD = Embedded([Row(1, "b", "world", (None,))], [Piece(numbers(0.5, -1))])


def write(output: Path, layout: Layout, shards: Sequence[Embedded]) -> None:
    sink = make_sink(output, layout)
    with atomic_write(output) as file:
        sink.write(file, [bytes(sink.encode(shard)) for shard in shards])


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_output_contains_the_shards_in_the_given_order(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    kept = {"n": pa.int64() if suffix == ".parquet" else None}
    write(output, Layout(2, ids="text", kept=kept), [WHOLE, UNTOLD])
    assert read(output) == [
        {"id": "a", "n": 1, "embedding": [1.0, 2.0], "tokens": 3, "tokens_unread": None},
        {"id": "b", "n": None, "embedding": [0.5, -1.0], "tokens": None, "tokens_unread": None},
    ]


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("int8", pa.int8()), ("uint8", pa.uint8()), ("binary", pa.int8()), ("ubinary", pa.uint8())],
)
def test_quantized_vectors_have_their_type_in_both_formats(
    tmp_path: Path, dtype: str, kind: pa.DataType
) -> None:
    layout = Layout(2 if dtype.endswith("int8") else 16, dtype=OutputDtype(dtype))
    numbers = [3, 250] if kind == pa.uint8() else [3, -6]
    shard = Embedded([Row(0, 0, "hello")], [Piece(bytes([3, 250]), 1)])
    for suffix in (".parquet", ".jsonl"):
        write(tmp_path / f"out{suffix}", layout, [shard])
        assert read(tmp_path / f"out{suffix}")[0]["embedding"] == numbers
    assert pq.read_schema(tmp_path / "out.parquet").field("embedding").type == pa.list_(kind, 2)


def test_shards_are_read_from_their_file_in_any_order(tmp_path: Path) -> None:
    shards = ShardFile(tmp_path / "shards")
    first, second = shards.append([b"first", memoryview(b"second")])
    (third,) = ShardFile(tmp_path / "shards").append([b"third"])
    assert [shards.read(place) for place in (third, first, second)] == [b"third", b"first", b"second"]
    assert all(map(shards.has, (first, second, third)))
    assert not shards.has(third._replace(size=third.size + 1))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_each_chunk_of_a_split_text_is_a_row_with_its_offsets(tmp_path: Path, suffix: str) -> None:
    chunks = [Piece(numbers(1, 2), 1, 0, 5, "hello"), Piece(numbers(3, 4), 2, 5, 9, " you")]
    cut, whole = Row(7, 7, "hello you"), Row(8, 8, "hi")
    shard = Embedded([cut, cut, whole], [*chunks, Piece(numbers(5, 6), 1, 0, 2, "hi")])
    write(tmp_path / f"out{suffix}", Layout(2, chunked=True), [shard])
    assert read(tmp_path / f"out{suffix}") == [
        {
            "id": 7,
            "chunk": 0,
            "start": 0,
            "end": 5,
            "text": "hello",
            "embedding": [1.0, 2.0],
            "tokens": 1,
            "tokens_unread": None,
        },
        {
            "id": 7,
            "chunk": 1,
            "start": 5,
            "end": 9,
            "text": " you",
            "embedding": [3.0, 4.0],
            "tokens": 2,
            "tokens_unread": None,
        },
        {
            "id": 8,
            "chunk": 0,
            "start": 0,
            "end": 2,
            "text": "hi",
            "embedding": [5.0, 6.0],
            "tokens": 1,
            "tokens_unread": None,
        },
    ]


def test_vectors_are_a_column_of_fixed_size_lists_of_float32(tmp_path: Path) -> None:
    write(tmp_path / "out.parquet", Layout(2), [Embedded([Row(0, 0, "a")], [Piece(numbers(0.1, 0.2))])])
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 2)
    assert table.column("embedding").combine_chunks().flatten().buffers()[1].to_pybytes()[:8] == numbers(
        0.1, 0.2
    )


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_empty_output_is_a_valid_file(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"out{suffix}", Layout(2), [])
    assert read(tmp_path / f"out{suffix}") == []


def test_many_small_shards_become_few_large_row_groups(tmp_path: Path) -> None:
    vector = bytes(4 * 65_536)
    rows = [Row(n, n, "a") for n in range(100)]
    write(tmp_path / "out.parquet", Layout(65_536), [Embedded(rows, [Piece(vector)] * 100)] * 3)
    metadata = pq.read_metadata(tmp_path / "out.parquet")
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [200, 100]


def test_json_values_are_kept_as_strings_in_parquet(tmp_path: Path) -> None:
    layout = Layout(1, ids="text", kept={"more": None})
    kept = ["a text", {"a": [1]}, None, 5]
    rows = [Row(n, n, "a", (value,)) for n, value in enumerate(kept)]
    write(tmp_path / "out.parquet", layout, [Embedded(rows, [Piece(numbers(1))] * len(rows))])
    assert [(row["id"], row["more"]) for row in read(tmp_path / "out.parquet")] == [
        ("0", "a text"),
        ("1", '{"a":[1]}'),
        ("2", None),
        ("3", "5"),
    ]


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def written_by_halves() -> Iterator[bytes]:
        yield b"half"
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"), atomic_write(path) as file:
        file.writelines(written_by_halves())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def record(shard: int, **fields: Any) -> Record:
    return Record(
        **{
            "shard": shard,
            "digest": f"d{shard}",
            "rows": 2,
            "pieces": 2,
            "tokens": 5,
            "exact": True,
            "part": ByteRange(9 * shard, 9),
            **fields,
        }
    )


def test_reopened_manifest_lists_completed_shards(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    bad = [FailedRow(row=n, id=None, cause="null_text", message="The text is null.") for n in (5, 4)]
    manifest = Manifest(path)
    for one in (record(2, failed=bad, part=None, pieces=0), record(0), record(1, exact=False)):
        manifest.add([one])
    manifest.close()
    again = Manifest(path)
    assert {shard: done.digest for shard, done in again.done.items()} == {2: "d2", 0: "d0", 1: "d1"}
    assert {shard: done.part for shard, done in again.done.items()} == {2: None, 0: (0, 9), 1: (9, 9)}
    assert [failed.row for failed in again.failures()] == [4, 5]
    totals = again.totals
    assert (totals.rows, totals.failed, totals.pieces, totals.tokens, totals.exact) == (6, 2, 4, 15, False)
    assert read_totals(path) == totals
    again.close()


@pytest.mark.parametrize("tail", [b'{"shard":1,"dig', b'{"shard":1}\n', b"\xff\xfe\n", b'{"shard":1'])
def test_torn_line_is_ignored(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "manifest.jsonl"
    manifest = Manifest(path)
    manifest.add([record(0)])
    manifest.close()
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    manifest = Manifest(path)
    assert list(manifest.done) == [0]
    manifest.add([record(1)])
    manifest.close()
    again = Manifest(path)
    assert list(again.done) == [0, 1]
    again.close()


def test_redone_shard_is_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    manifest = Manifest(path)
    manifest.add([record(0)])
    manifest.forget(0)
    assert (manifest.totals.rows, manifest.done) == (0, {})
    manifest.add([record(0, tokens=7)])
    manifest.close()
    again = Manifest(path)
    assert (again.totals.rows, again.totals.tokens) == (2, 7)
    assert read_totals(path) == again.totals
    again.close()


def test_missing_manifest_means_nothing_is_done(tmp_path: Path) -> None:
    assert read_totals(tmp_path / "manifest.jsonl").rows == 0
