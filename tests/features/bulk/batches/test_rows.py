"""The input of a batch is read a line at a time, and lines of any length are handled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hubgate.features.bulk.batches.rows import MAX_FAULTS, check_rows, read_rows

if TYPE_CHECKING:
    from pathlib import Path

URL = "/v1/embeddings"


def line(custom_id: str, text: str = "") -> str:
    return json.dumps(
        {"custom_id": custom_id, "method": "POST", "url": URL, "body": {"model": "m", "input": text}}
    )


def test_a_line_over_the_limit_is_one_fault(tmp_path: Path) -> None:
    path = tmp_path / "in"
    long = line("long", "x" * 5000)
    path.write_text("\n".join([line("a"), long, line("b"), long]))
    checked = check_rows(path, URL, 1000)
    assert [(fault.line, fault.code) for fault in checked.faults] == [
        (2, "line_too_long"),
        (4, "line_too_long"),
    ]
    assert (checked.total, checked.last, checked.model) == (4, 4, "m")


def test_a_line_of_exactly_the_limit_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(f"{line('a')}\r\n{line('b')}".encode())
    checked = check_rows(path, URL, len(line("a")))
    assert checked.faults == []
    assert [(row.number, row.custom_id) for row in read_rows(path, len(line("a")))] == [(1, "a"), (2, "b")]


def test_empty_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text(f"\n{line('a')}\n\n  \n{line('b')}\n\n")
    assert check_rows(path, URL, 1000).total == 2
    assert [row.number for row in read_rows(path, 1000)] == [2, 5]


def test_a_few_of_many_faults_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text("{\n" * 1000)
    assert len(check_rows(path, URL, 1000).faults) == MAX_FAULTS


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"model": "\xff"}', "invalid_json_line"),
        (b'{"model": "a \\ud83d"}', "invalid_json_line"),
        (b'{"stream": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json_line"),
        (b'["\xff"]', "invalid_body"),
    ],
)
def test_a_body_that_cannot_be_decoded_is_a_fault_of_its_line(tmp_path: Path, body: bytes, code: str) -> None:
    path = tmp_path / "in"
    path.write_bytes(b'{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": %b}\n' % body)
    checked = check_rows(path, URL, 1 << 20)
    assert [(fault.line, fault.code) for fault in checked.faults] == [(1, code)]
