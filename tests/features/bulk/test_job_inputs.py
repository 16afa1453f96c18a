"""The rows read from each input format, and why rows fail."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hubgate.features.bulk.engine.rows import Columns, Embedded, FailedRow, JobStopped, Layout, Piece, Row
from hubgate.features.bulk.engine.shards import cut_shards
from hubgate.features.bulk.formats.formats import check_output, make_sink, open_source
from hubgate.features.bulk.formats.inputs import compare_identity
from hubgate.features.bulk.formats.jsonl import JsonlSource
from hubgate.features.bulk.formats.text_folder import TextFolder

if TYPE_CHECKING:
    from pathlib import Path


def lines(path: Path, *written: object) -> Path:
    """A file of JSON lines; bytes are written as they are."""
    path.write_bytes(
        b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in written)
    )
    return path


def told(rows: Any) -> list[tuple[object, ...]]:
    """Rows as (number, id, text), failed ones as (number, id, cause)."""
    return [(row.row, row.id, str(row.cause)) if isinstance(row, FailedRow) else row[:3] for row in rows]


def test_each_line_is_a_row_and_an_invalid_line_fails_alone(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "in.jsonl",
        b'\xef\xbb\xbf{"id": "a", "text": "first", "n": 1}',
        b"{broken",
        b"",
        {"id": 7, "text": ""},
        {"id": "c", "text": None},
        {"id": "d"},
        {"id": "e", "text": ["no"]},
        {"text": "no id"},
        {"id": 1.5, "text": "an id that is no whole number"},
        {"id": True},
        b'{"id": "g", "text": "\xff"}',
        b"[1]",
        {"id": "h", "text": "x" * 1_000_000},
    )
    rows = list(open_source(path, Columns(id="id", keep=("n",))).rows())
    assert rows[0] == Row(0, "a", "first", (1,))
    assert told(rows[1:-1]) == [
        (1, None, "not_json"),
        (3, 7, "empty_text"),
        (4, "c", "null_text"),
        (5, "d", "no_text"),
        (6, "e", "not_a_text"),
        (7, None, "no_id"),
        (8, None, "no_id"),
        (9, None, "no_text"),
        (10, None, "not_utf8"),
        (11, None, "not_json"),
    ]
    assert isinstance(rows[-1], Row)
    assert (rows[-1].number, len(rows[-1].text), rows[-1].kept) == (12, 1_000_000, (None,))


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_too_deeply_nested_kept_value_fails_only_its_row(tmp_path: Path, name: str) -> None:
    deep, most = (b"[" * depth + b"]" * depth for depth in (400, 250))
    path = lines(
        tmp_path / "in.jsonl",
        b'{"text": "a", "kept": %b}' % deep,
        b'{"text": "b", "kept": %b, "else": %b}' % (most, deep),
    )
    failed, row = JsonlSource(path, Columns(keep=("kept",))).rows()
    assert isinstance(failed, FailedRow)
    assert (failed.id, failed.cause) == (0, "unreadable")
    assert isinstance(row, Row)
    sink = make_sink(tmp_path / name, Layout(1, kept={"kept": None}))
    assert sink.encode(Embedded([row], [Piece(bytes(4))]))


def test_too_long_line_is_skipped_and_the_next_is_read(tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl", {"text": "x" * 3_000_000}, {"text": "next"})
    source = JsonlSource(path, Columns(), max_bytes=1000)
    assert told(source.rows()) == [(0, None, "too_long"), (1, 1, "next")]


def test_number_of_lines_is_estimated_from_the_lines_read(tmp_path: Path) -> None:
    source = open_source(lines(tmp_path / "in.jsonl", *[{"text": "even"}] * 50), Columns())
    told_by_then = [source.expected_rows, *(source.expected_rows for _ in source.rows())]
    assert told_by_then[0] is None
    assert told_by_then[11] == 55  # the last one that was read counts with the next
    assert source.expected_rows == 50


def test_each_parquet_row_has_its_id_and_kept_values(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = {"key": [10, 11, None, 13], "body": ["a", None, "c", ""], "more": [[1], [], None, [2, 3]]}
    pq.write_table(pa.table(table), path)
    source = open_source(path, Columns("body", "key", ("more",)))
    rows = list(source.rows())
    assert rows[0] == Row(0, 10, "a", ([1],))
    assert told(rows[1:]) == [(1, 11, "null_text"), (2, None, "no_id"), (3, 13, "empty_text")]
    assert (source.expected_rows, source.layout) == (4, ("int", {"more": pa.list_(pa.int64())}))


def test_texts_of_every_arrow_type_are_read(tmp_path: Path) -> None:
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        path = tmp_path / "in.parquet"
        texts = pa.array(["a", "b", "a"]).cast(kind)
        pq.write_table(pa.table({"text": texts, "id": texts}), path)
        assert told(open_source(path, Columns(id="id")).rows()) == [
            (0, "a", "a"),
            (1, "b", "b"),
            (2, "a", "a"),
        ]


def test_parquet_text_that_is_not_utf8_fails_only_its_row(tmp_path: Path) -> None:
    places = pa.py_buffer(struct.pack("<4i", 0, 2, 3, 3))
    texts = pa.Array.from_buffers(pa.string(), 3, [None, places, pa.py_buffer(b"\xff\xfeA")])
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    rows = open_source(tmp_path / "in.parquet", Columns()).rows()
    assert told(rows) == [(0, None, "not_utf8"), (1, 1, "A"), (2, 2, "empty_text")]


@pytest.mark.parametrize(
    ("stored", "kind"),
    [(1, pa.timestamp("ns")), (1, pa.time64("ns")), (2**60, pa.timestamp("us")), (b"\xff", pa.string())],
)
def test_kept_value_without_a_python_equivalent_fails_only_its_row(
    tmp_path: Path, stored: int | bytes, kind: pa.DataType
) -> None:
    raw = pa.binary() if isinstance(stored, bytes) else pa.int64()
    kept = pa.array([None, stored, None], raw).view(kind)
    pq.write_table(pa.table({"text": ["a", "b", "c"], "kept": kept}), tmp_path / "in.parquet")
    source = open_source(tmp_path / "in.parquet", Columns(keep=("kept",)))
    rows = list(source.rows())
    assert told(rows) == [(0, 0, "a"), (1, 1, "unreadable"), (2, 2, "c")]
    assert isinstance(rows[1], FailedRow)
    assert rows[1].message.startswith("A value cannot be kept: ")


def test_duplicate_column_names_are_rejected(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(JobStopped, match=r"has several columns \[text\]\. Rename all but one"):
        open_source(tmp_path / "in.parquet", Columns())


def test_broken_row_group_fails_only_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    texts = [f"a text of row {number} that is not like the others" for number in range(30)]
    pq.write_table(
        pa.table({"text": texts}), path, row_group_size=10, use_dictionary=False, compression="zstd"
    )
    second = pq.ParquetFile(path).metadata.row_group(1).column(0)
    with path.open("r+b") as file:
        file.seek(second.data_page_offset + 40)
        file.write(b"\0" * 40)
    rows = list(open_source(path, Columns()).rows())
    assert [row.cause for row in rows if isinstance(row, FailedRow)] == ["unreadable"] * 10
    assert [row.number for row in rows if isinstance(row, Row)] == [*range(10), *range(20, 30)]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (Columns("body"), r"has no column \[body\]\. Its columns are text, n, d: use one"),
        (Columns("n"), r"The column \[n\] of \S+ contains int64, not strings\."),
        (Columns("text", "d"), r"The column \[d\] of \S+ contains double, not integers or strings\."),
        (Columns("text", None, ("x",)), r"has no column \[x\]"),
    ],
)
def test_missing_or_unusable_column_is_reported_before_any_request(
    tmp_path: Path, columns: Columns, said: str
) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": [1], "d": [0.5]}), tmp_path / "in.parquet")
    with pytest.raises(JobStopped, match=said):
        open_source(tmp_path / "in.parquet", columns)


@pytest.mark.parametrize("columns", [Columns(), Columns("body", "key")])
def test_field_missing_from_the_first_rows_is_reported_with_the_existing_ones(
    tmp_path: Path, columns: Columns
) -> None:
    missing = columns.id or columns.text
    rows: list[object] = [b"", b"no JSON", [1], {"id": 1, "body": "a"}, *[{"body": "a", "n": 1}] * 97]
    path = lines(tmp_path / "in.jsonl", *rows, {"late": 1})
    said = (
        rf"None of the first 100 rows of \S+ has a field \[{missing}\]\. Its fields are id, body, n: use one"
    )
    with pytest.raises(JobStopped, match=said):
        open_source(path, columns)


def test_field_found_in_one_of_the_first_rows_is_accepted(tmp_path: Path) -> None:
    late = {"id": 1, "text": None}
    path = lines(tmp_path / "in.jsonl", *[{"body": "a"}] * 99, late, {"body": "b"})
    assert {row[2] for row in told(open_source(path, Columns()).rows())} == {"no_text", "null_text"}
    beyond = lines(tmp_path / "beyond.jsonl", *[{"body": "a"}] * 100, late)
    with pytest.raises(JobStopped, match=r"has a field \[text\]"):
        open_source(beyond, Columns())


def test_file_without_fields_has_no_missing_field_error(tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl", b"no JSON", [1])
    assert [row[2] for row in told(open_source(path, Columns()).rows())] == ["not_json", "not_json"]


def test_listed_fields_are_bounded_and_long_names_truncated(tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl", {"x" * 100: 0, **{f"f{n}": 0 for n in range(24)}})
    with pytest.raises(
        JobStopped,
        match=rf"^No row of \S+ has .* Its fields are {'x' * 60}…, f0, .*, f18 and 5 more: use one",
    ):
        open_source(path, Columns())


def test_folder_is_read_in_path_order(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    for name, text in (
        ("b.md", b"# b"),
        ("a.TXT", b"\xef\xbb\xbfa"),
        ("deep/er/c.markdown", "é".encode()),
        ("deep/empty.txt", b""),
        ("latin.txt", b"\xe9"),
        ("code.py", b"no text"),
        (".hidden.md", b"hidden"),
        (".git/d.txt", b"hidden"),
    ):
        (tmp_path / name).write_bytes(text)
    (tmp_path / "nowhere.txt").symlink_to(tmp_path / "gone")
    source = open_source(tmp_path, Columns())
    assert told(source.rows()) == [
        (0, "a.TXT", "a"),
        (1, "b.md", "# b"),
        (2, "deep/empty.txt", "empty_text"),
        (3, "deep/er/c.markdown", "é"),
        (4, "latin.txt", "not_utf8"),
    ]
    assert (source.expected_rows, source.layout) == (5, ("text", {}))


def test_pipe_in_a_folder_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    os.mkfifo(tmp_path / "pipe.txt")
    assert TextFolder(tmp_path).expected_rows == 1


def test_file_changed_or_removed_after_listing_fails_alone(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "c.md", "long.md"):
        (tmp_path / name).write_text("as it was")
    (tmp_path / "long.md").write_text("x" * 200)
    source = TextFolder(tmp_path, max_bytes=100)
    (tmp_path / "a.md").write_text("not as it was")
    (tmp_path / "b.md").unlink()
    assert told(source.rows()) == [
        (0, "a.md", "file_changed"),
        (1, "b.md", "unreadable"),
        (2, "c.md", "as it was"),
        (3, "long.md", "too_long"),
    ]


def test_removed_folder_stops_the_job(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.md").write_text("a")
    source = open_source(folder, Columns())
    source.check()
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(JobStopped, match=r"The input has changed: the folder .* is gone"):
        source.check()


@pytest.mark.parametrize(
    ("name", "written", "columns", "said"),
    [
        (
            "in.csv",
            b"a,b",
            Columns(),
            r"The format of the input \S+in\.csv is unknown\. Its name must end in one of",
        ),
        ("in.parquet", b"not parquet", Columns(), r"in\.parquet is not a valid Parquet file: "),
        ("gone.jsonl", None, Columns(), r"The input \S+ cannot be read: No such file or directory\."),
        (".", None, Columns(), r"The folder \S+ contains no texts\."),
        (".", None, Columns(id="id"), r"Files in a folder have no fields: remove --id-field and --keep\."),
    ],
)
def test_unreadable_input_is_reported_in_one_sentence(
    tmp_path: Path, name: str, written: bytes | None, columns: Columns, said: str
) -> None:
    if written is not None:
        (tmp_path / name).write_bytes(written)
    with pytest.raises(JobStopped, match=said):
        open_source(tmp_path / name, columns)


@pytest.mark.parametrize(
    ("name", "keep", "chunked", "said"),
    [
        ("out.csv", (), False, r"The format of the output \S+ is unknown\."),
        ("nowhere/out.jsonl", (), False, "does not exist. Create it"),
        ("out.jsonl", ("tokens",), False, r"has its own column \[tokens\]\. Remove --keep tokens"),
        ("out.jsonl", ("text",), True, r"has its own column \[text\]"),
    ],
)
def test_invalid_output_is_reported_before_any_request(
    tmp_path: Path, name: str, keep: tuple[str, ...], chunked: bool, said: str
) -> None:
    check_output(tmp_path / "out.parquet", Columns(keep=("text",)), chunked=False)
    with pytest.raises(JobStopped, match=said):
        check_output(tmp_path / name, Columns(keep=keep), chunked=chunked)


def test_input_identity_depends_on_size_and_samples_not_on_time(tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl", {"text": "a"}, {"text": "b"})
    then = open_source(path, Columns()).identity()
    os.utime(path, (1, 1))
    compare_identity(then, open_source(path, Columns()).identity())
    lines(path, {"text": "a"}, {"text": "c"})
    with pytest.raises(
        JobStopped, match="its size is the same as when the job started, but its content is not"
    ):
        compare_identity(then, open_source(path, Columns()).identity())
    lines(path, {"text": "a"})
    with pytest.raises(JobStopped, match="it had 28 bytes when the job started and now has 14"):
        compare_identity(then, open_source(path, Columns()).identity())


def test_changed_byte_at_either_end_of_a_large_input_changes_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(bytes(10_000_000))
    then = JsonlSource(path, Columns()).identity()
    for place in (0, 9_999_999):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        assert JsonlSource(path, Columns()).identity() != then


def test_input_modified_or_removed_while_read_stops_the_job(tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl", {"text": "a"})
    source = open_source(path, Columns())
    source.check()
    with path.open("a") as file:
        file.write('{"text": "b"}\n')
    with pytest.raises(JobStopped, match=r"in\.jsonl was written to while it was read\. Restore"):
        source.check()
    path.unlink()
    with pytest.raises(JobStopped, match=r"can no longer be read \(No such file or directory\)"):
        source.check()


def test_shards_are_cut_by_rows_and_bytes_and_a_long_row_is_its_own_shard() -> None:
    texts = ["a", "b", "c", "long " * 20, "é" * 30, "d"]
    rows = [Row(number, number, text) for number, text in enumerate(texts)]
    shards = list(cut_shards(rows, max_rows=2, max_bytes=70))
    assert [[row.number for row in shard.rows] for shard in shards] == [[0, 1], [2], [3], [4, 5]]
    assert [shard.number for shard in shards] == [0, 1, 2, 3]
    assert [shard.digest for shard in shards] == [shard.digest for shard in cut_shards(rows, 2, 70)]
    assert list(cut_shards([], 2)) == []


def test_shard_digest_depends_on_texts_ids_positions_kept_values_and_errors() -> None:
    bad = FailedRow(row=0, id="a", cause="empty_text", message="The text is empty.")
    alike: list[list[Row | FailedRow]] = [
        [Row(0, "a", "bc")],
        [Row(0, "ab", "c")],
        [Row(1, "a", "bc")],
        [Row(0, "a", "bc", (1,))],
        [Row(0, "a", "b"), Row(1, "c", "d")],
        [bad],
    ]
    assert len({next(cut_shards(rows, 10)).digest for rows in alike}) == len(alike)


_WITHOUT_PYARROW = """
import sys
sys.modules["pyarrow"] = None
from hubgate.cli import main
main(["job", "run", sys.argv[1], sys.argv[2], "--endpoint", "e5"])
"""


@pytest.mark.parametrize(("source", "output"), [("in.parquet", "out.jsonl"), ("in.jsonl", "out.parquet")])
def test_parquet_error_without_pyarrow_names_the_package(tmp_path: Path, source: str, output: str) -> None:
    (tmp_path / source).write_text('{"text": "a"}')
    ran = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PYARROW, str(tmp_path / source), str(tmp_path / output)],
        env={**os.environ, "HUBGATE_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 1
    said = "hubgate: Parquet needs pyarrow, which is not installed. Install hubgate[bulk] "
    assert ran.stderr.startswith(said)
