"""`hubgate chunk` answers every line of standard input with the offsets of its chunks, or with an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from hubgate.cli.chunk import chunk_command

CASES = Path(__file__).parents[1] / "data" / "chunking" / "elasticsearch-9.4.jsonl"
APP = typer.Typer()
APP.command()(chunk_command)


def run(lines: bytes) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(APP, input=lines)
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def test_every_recorded_case_matches_elasticsearch() -> None:
    cases = [json.loads(line) for line in CASES.read_bytes().splitlines()]
    code, answers = run(CASES.read_bytes())
    assert code == 0
    assert answers == [{"utf16": case["utf16"], "codepoints": case["codepoints"]} for case in cases]


def test_settings_are_optional() -> None:
    assert run(b'{"text": "a. b."}\n{"text": "", "settings": null}') == (
        0,
        [{"utf16": [[0, 5]], "codepoints": [[0, 5]]}, {"utf16": [[0, 0]], "codepoints": [[0, 0]]}],
    )


def test_offsets_differ_beyond_the_bmp_and_lone_surrogates_are_accepted() -> None:
    assert run(rb'{"text": "\ud83d\ude00 \ud83d"}') == (0, [{"utf16": [[0, 4]], "codepoints": [[0, 3]]}])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"", "invalid JSON"),
        (b"{", "invalid JSON"),
        (b'"\xff"', "invalid JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[]", 'not an object with a string "text"'),
        (b'{"text": 1}', 'not an object with a string "text"'),
        (b'{"text": "a", "settings": []}', '"settings" is not an object'),
        (b'{"text": "a", "settings": {"strategy": "sentence"}}', "required setting [max_chunk_size]"),
        (
            b'{"text": "a", "settings": {"strategy": "recursive", "max_chunk_size": 10, "separators": ["("]}}',
            "[(]",
        ),
    ],
)
def test_invalid_line_is_answered_in_place_and_sets_the_exit_code(line: bytes, told: str) -> None:
    code, answers = run(b'{"text": "a"}\n' + line + b'\n{"text": "b"}\n')
    assert code == 1
    assert [list(answer) for answer in answers] == [
        ["utf16", "codepoints"],
        ["error"],
        ["utf16", "codepoints"],
    ]
    assert answers[1]["error"].startswith("line 2: ")
    assert told in answers[1]["error"]


def test_each_line_is_answered_before_the_next_is_read() -> None:
    program = "import typer; from hubgate.cli.chunk import chunk_command; typer.run(chunk_command)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in ("a", "ab"):
            process.stdin.write(json.dumps({"text": text}).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["utf16"] == [[0, len(text)]]
        process.stdin.close()
        assert process.wait() == 0
