"""The worker process of a model that generates text: its protocol, and its isolation."""

from __future__ import annotations

import subprocess
import sys
from typing import IO, TYPE_CHECKING

import pytest
from tiny_writer import unpack, written

from hubgate.domain.errors import InvalidRequest
from hubgate.runtime.process import worker_command
from hubgate.runtime.protocol import (
    CancelCall,
    GenerateText,
    Ready,
    SamplingOptions,
    TextPiece,
    decode_reply,
    encode_frame,
)
from hubgate.runtime.supervisor import LocalModel

if TYPE_CHECKING:
    from pathlib import Path

ENDLESS = "12 + 30 ="


def read_reply(pipe: IO[bytes]) -> object:
    return decode_reply(pipe.read(int.from_bytes(pipe.read(4), "little")))


def test_cancelled_text_is_not_generated_to_its_end(tmp_path: Path) -> None:
    command = worker_command(unpack("qwen2", tmp_path / "qwen2"), generates=True)
    long = SamplingOptions(max_tokens=160)
    frames: list[GenerateText | CancelCall] = [
        GenerateText(1, ENDLESS, options=long),
        GenerateText(2, ENDLESS, options=long),
        CancelCall(1),
        GenerateText(3, ENDLESS, options=long),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert read_reply(worker.stdout) == Ready(0, "f32", 256)
        worker.stdin.write(b"".join(encode_frame(frame) for frame in frames))
        worker.stdin.flush()
        ended: dict[int, TextPiece] = {}
        seen: dict[int, int] = {}
        while len(ended) < 2:
            piece = read_reply(worker.stdout)
            assert isinstance(piece, TextPiece)
            seen[piece.call] = piece.tokens
            if piece.finish_reason is not None:
                ended[piece.call] = piece
        worker.stdin.close()
        assert worker.wait(240) == 0
    assert sorted(ended) == [2, 3]
    assert seen.get(1, 0) < 160
    assert {piece.tokens for piece in ended.values()} == {160}


WATCHED = """
import os, runpy, sys
def watch(event, arguments):
    if event.startswith("socket.") and event != "socket.__new__":
        os._exit(99)
sys.addaudithook(watch)
"""


async def test_generating_text_makes_no_network_access(tmp_path: Path) -> None:
    """Also where OpenVINO's telemetry is installed, which reports on import: here a decoy that ends the process."""
    (tmp_path / "openvino_telemetry.py").write_text("import os; os._exit(98)")
    folder = unpack("qwen2", tmp_path / "model")
    worker = f"""
sys.path.insert(0, {str(tmp_path)!r})
sys.argv = ["worker", {str(folder)!r}, "--generate"]
runpy.run_module("hubgate.runtime.worker", run_name="__main__")
"""
    model = LocalModel(folder, command=lambda _: [sys.executable, "-c", WATCHED + worker])
    assert (await written(model, "The ferry")).text == " leaves the harbour at nine in the morning."
    await model.close()


def test_message_with_a_huge_number_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="more than 64 bits"):
        encode_frame(GenerateText(1, "", [{"role": "user", "content": "a", "cost": 2**70}]))
