"""The head and body of a response are sent in one write, and nothing is lost or sent after close."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from hubgate.cli.server.connection import WriteBatcher


class Sent(asyncio.Transport):
    """A transport that keeps what it would send."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.writes: list[bytes] = []
        self.ended = False

    def writelines(self, list_of_data: object) -> None:
        self.writes.append(b"".join(cast("list[bytes]", list_of_data)))

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return 100


@pytest.fixture
async def both() -> tuple[WriteBatcher, Sent]:
    sent = Sent()
    return WriteBatcher(sent, asyncio.get_running_loop()), sent


async def test_writes_of_one_loop_iteration_are_sent_together_in_order(
    both: tuple[WriteBatcher, Sent],
) -> None:
    batcher, sent = both
    batcher.write(b"head ")
    batcher.write(b"body")
    assert sent.writes == []
    await asyncio.sleep(0)
    batcher.write(b"next")
    await asyncio.sleep(0)
    assert sent.writes == [b"head body", b"next"]


async def test_buffered_data_is_sent_before_close(both: tuple[WriteBatcher, Sent]) -> None:
    batcher, sent = both
    batcher.write(b"last words")
    batcher.close()
    await asyncio.sleep(0)
    assert sent.writes == [b"last words"]
    assert sent.ended


async def test_nothing_is_sent_to_a_disconnected_client(both: tuple[WriteBatcher, Sent]) -> None:
    batcher, sent = both
    batcher.write(b"too late")
    sent.ended = True
    await asyncio.sleep(0)
    assert sent.writes == []


async def test_buffered_data_counts_as_unsent(both: tuple[WriteBatcher, Sent]) -> None:
    batcher, _ = both
    batcher.write(b"12345")
    assert batcher.get_write_buffer_size() == 105
    assert batcher.get_extra_info("peername") == ("127.0.0.1", 1)
