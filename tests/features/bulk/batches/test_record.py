"""Answers of a batch survive what kills the gateway, and the output is in the order of the input."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hubgate.features.bulk.batches.folder import FilesFolder
from hubgate.features.bulk.batches.record import Answer, Record, error_line, response_line
from hubgate.features.bulk.batches.rows import Row

if TYPE_CHECKING:
    from pathlib import Path

BATCH = "batch_ab12"
ROWS = [Row(number, f"r{number}", b"{}") for number in range(1, 6)]


def answer(number: int, text: str = "x", status: int = 200) -> Answer:
    body = json.dumps({"text": text}, indent=1).encode()
    return Answer(number, status == 200, response_line(BATCH, ROWS[number - 1], status, "id", body))


@pytest.fixture
def folder(tmp_path: Path) -> FilesFolder:
    folder = FilesFolder(tmp_path / "files")
    folder.open()
    return folder


def opened(folder: FilesFolder, run: int) -> Record:
    return Record(folder, BATCH, run, folder.path("out"), len(ROWS))


def test_answers_of_earlier_runs_are_known(folder: FilesFolder) -> None:
    first = opened(folder, 1)
    first.append([answer(4), answer(2, status=400)])
    first.append([answer(1)])
    first.close()
    second = opened(folder, 2)
    assert [second.has(row.number) for row in ROWS] == [True, True, False, True, False]
    assert (second.completed, second.failed) == (2, 1)
    second.append([answer(4, "again")])  # an answer is never replaced
    assert second.completed == 2
    second.close()


@pytest.mark.parametrize(
    "torn",
    [b'{"id":"batch_req_00000', b'{"id":"batch_req_0000000003_ab12","custom_id":"r3","res', b"\0" * 40],
)
def test_a_torn_last_line_is_dropped(folder: FilesFolder, torn: bytes) -> None:
    first = opened(folder, 1)
    first.append([answer(1)])
    first.close()
    (part,) = [part for part in folder.parts(BATCH) if "output" in part.name]
    part.write_bytes(part.read_bytes() + torn)
    second = opened(folder, 2)
    assert [second.has(row.number) for row in ROWS] == [True, False, False, False, False]
    second.append([answer(3)])
    second.close()
    third = opened(folder, 3)
    assert third.completed == 2
    third.close()


def test_output_and_errors_are_in_the_order_of_the_input(folder: FilesFolder) -> None:
    record = opened(folder, 1)
    record.append([answer(5), answer(1), answer(3, status=404)])
    output, errors = folder.path("out"), folder.path("err")
    sizes = record.write(iter(ROWS), output, errors, ("batch_expired", "Too late."), BATCH)
    record.close()
    assert sizes == (output.stat().st_size, errors.stat().st_size)
    good = [json.loads(line) for line in output.read_bytes().splitlines()]
    bad = [json.loads(line) for line in errors.read_bytes().splitlines()]
    assert [line["custom_id"] for line in good] == ["r1", "r5"]
    assert [(line["custom_id"], line["error"]) for line in bad] == [
        ("r2", {"code": "batch_expired", "message": "Too late."}),
        ("r3", None),
        ("r4", {"code": "batch_expired", "message": "Too late."}),
    ]


def test_a_resumed_batch_keeps_the_successes_of_its_output(folder: FilesFolder) -> None:
    record = opened(folder, 1)
    record.append([answer(2), answer(3, status=404)])
    record.write(iter(ROWS), folder.path("out"), folder.path("err"), None, BATCH)
    record.close()
    for part in folder.parts(BATCH):
        part.unlink()
    again = opened(folder, 2)
    assert [again.has(row.number) for row in ROWS] == [False, True, False, False, False]
    again.append([answer(3)])
    again.write(iter(ROWS), folder.path("out"), folder.path("err"), None, BATCH)
    again.close()
    lines = folder.path("out").read_bytes().splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == ["r2", "r3"]
    assert folder.path("err").read_bytes() == b""


def test_a_pretty_printed_body_becomes_one_line() -> None:
    row = Row(1, 'a"\n', b"{}")
    line = response_line(BATCH, row, 200, "id", b'{\r\n "a": "b\\n"\n}')
    assert line.count(b"\n") == 1
    assert json.loads(line)["custom_id"] == 'a"\n'
    assert json.loads(line)["response"]["body"] == {"a": "b\n"}
    assert json.loads(error_line(BATCH, row, "c", "m"))["error"] == {"code": "c", "message": "m"}
