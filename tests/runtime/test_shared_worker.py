"""A local model's worker that several gateways of a machine use, over a socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tiny_model import TinyModelFolder, embed_texts, worker_process

from hubgate.domain.errors import Cause, RuntimeFailed
from hubgate.runtime.attaching import attach
from hubgate.runtime.protocol import (
    CancelCall,
    EmbedTexts,
    Failed,
    Ready,
    Reply,
    Request,
    TextPiece,
    decode_reply,
    encode_frame,
    read_request,
)
from hubgate.runtime.sharing import HELLO, SharedPipes, find_call, listen, renumbered, short_name
from hubgate.runtime.supervisor import LocalModel

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> TinyModelFolder:
    return TinyModelFolder(tmp_path_factory.mktemp("tiny"))


def shared_model(model: Path, sockets: Path) -> LocalModel:
    """The model, as one gateway of the machine uses it."""
    return LocalModel(model, start=partial(attach, sockets))


async def test_gateways_load_a_model_once_and_each_gets_its_own_replies(
    folder: TinyModelFolder, tmp_path: Path
) -> None:
    gateways = [shared_model(folder.path, tmp_path / "models") for _ in range(3)]
    await asyncio.gather(*(one.ready() for one in gateways))  # all start at once
    assert len({worker_process(one).pid for one in gateways}) == 1
    assert all(one.memory for one in gateways)
    texts = [f"w{number}" for number in range(1, 7)]
    expected = [await embed_texts(gateways[0], text) for text in texts]
    assert len({row.tobytes() for row in expected}) == len(texts)
    # Gateways number their calls alike.
    found = await asyncio.gather(
        *(embed_texts(gateways[number % 3], text) for number, text in enumerate(texts))
    )
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))
    await gateways[0].close()
    assert (await embed_texts(gateways[1], "w1") == expected[0]).all(), "others go on"
    os.kill(worker_process(gateways[1]).pid, signal.SIGKILL)
    for one in gateways[1:]:
        await worker_process(one)._task
    again = await asyncio.gather(*(embed_texts(one, "w2") for one in gateways[1:]))
    assert all((one == expected[1]).all() for one in again)
    assert len({worker_process(one).pid for one in gateways[1:]}) == 1
    os.kill(worker_process(gateways[1]).pid, signal.SIGKILL)
    await asyncio.gather(*(one.close() for one in gateways[1:]))


async def test_model_that_cannot_be_loaded_is_reported_to_each_gateway(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    gateways = [shared_model(broken, tmp_path / "models") for _ in range(2)]
    results = await asyncio.gather(*(one.ready() for one in gateways), return_exceptions=True)
    for refused in results:
        assert isinstance(refused, RuntimeFailed)
        assert str(broken) in refused.message
    await asyncio.gather(*(one.close() for one in gateways))


@pytest.mark.parametrize("call", [1, 0x7F, 0x80, 0xFFFF, 1 << 20, 1 << 40])
@pytest.mark.parametrize(
    "of",
    [
        CancelCall,
        lambda call: EmbedTexts(call, ["a text"] * 20, None, True, False, None),
        lambda call: TextPiece(call, "words", 3, 4, "stop", None),
    ],
)
def test_a_message_is_numbered_again_without_being_decoded(call: int, of: type[CancelCall]) -> None:
    body = encode_frame(of(call))[4:]
    found = find_call(body)
    assert found.call == call
    assert renumbered(body, found, 7) == encode_frame(of(7))
    assert renumbered(
        renumbered(body, found, 7)[4:], find_call(encode_frame(of(7))[4:]), call
    ) == encode_frame(of(call))


def test_messages_without_a_call_are_for_all() -> None:
    failed = Failed(None, "RuntimeFailed", "It is broken.", "Repair it.", Cause.RUNTIME_CRASHED)
    for message in (Ready(384, "f32", 512), failed):
        assert find_call(encode_frame(message)[4:]).call is None


class Client:
    """A gateway, as the pipes see it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        with short_name(path) as name:
            self._socket.connect(name)
        self._stream = self._socket.makefile("rb")

    def is_served(self) -> bool:
        return self._stream.read(1) == HELLO

    def send(self, request: Request) -> None:
        self._socket.sendall(encode_frame(request))

    def receive(self) -> Reply:
        return decode_reply(self._stream.read(int.from_bytes(self._stream.read(4), "little")))

    def leave(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        self._socket.close()


def test_calls_of_a_gateway_that_leaves_are_cancelled_and_the_worker_ends_after_the_last_one(
    tmp_path: Path,
) -> None:
    long = tmp_path / ("a" * 90) / ("b" * 90)
    long.mkdir(parents=True)
    path = long / "model.socket"
    listener = listen(path)
    first, second = Client(path), Client(path)
    pipes = SharedPipes(listener, linger=0.2)
    pipes.replies.write(encode_frame(Ready(8, "f32", 512)))
    assert first.is_served()
    third = Client(path)
    assert second.is_served()
    assert third.is_served()
    assert [one.receive() for one in (first, second, third)] == [Ready(8, "f32", 512)] * 3
    for client in (first, second):
        client.send(EmbedTexts(1, ["a"], None, True, False, None))
    calls = [request.call for _ in range(2) if (request := read_request(pipes.requests))]
    assert len(set(calls)) == 2
    pieces = {call: TextPiece(call, f"for {call}", 1, 1) for call in calls}
    for call in calls:
        pipes.replies.write(encode_frame(pieces[call]))
    received = [client.receive() for client in (first, second)]
    assert {one.text for one in received if isinstance(one, TextPiece)} == {f"for {call}" for call in calls}
    assert [one.call for one in received if isinstance(one, TextPiece)] == [1, 1]
    first.leave()
    cancelled = read_request(pipes.requests)
    assert isinstance(cancelled, CancelCall)
    (kept,) = set(calls) - {cancelled.call}
    pipes.replies.write(encode_frame(TextPiece(cancelled.call, "too late", 1, 2, "stop")))
    pipes.replies.write(encode_frame(TextPiece(kept, "the end", 1, 2, "stop")))
    last = second.receive()
    assert isinstance(last, TextPiece)
    assert last.text == "the end"
    second.leave()
    third.leave()
    assert read_request(pipes.requests) is None, "neither has calls to cancel"
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionError), short_name(path) as name:
        late.connect(name)
    pipes.requests.close()
    pipes.close()
