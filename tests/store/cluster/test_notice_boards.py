"""Notices that gateways share, on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hubgate.domain.cluster_ports import PostedNotice
from hubgate.store.cluster.postgres_link import PostgresLink
from hubgate.store.cluster.postgres_notices import PostgresNotices
from hubgate.store.postgres import PostgresDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hubgate.domain.cluster_ports import NoticeBoard


@pytest.fixture
async def board(migrated_url: str) -> AsyncIterator[NoticeBoard]:
    link = PostgresLink(PostgresDatabase(migrated_url, 5.0), 10.0)
    yield PostgresNotices(link)
    await link.close()


def notice(owner: str, text: str = "", seconds: float = 100.0, name: str = "open 0a1b") -> PostedNotice:
    return PostedNotice(name=name, owner=owner, text=text, seconds=seconds)


async def test_what_is_posted_is_read_until_it_is_removed(board: NoticeBoard) -> None:
    assert list(await board.read()) == []
    assert await board.post(notice("a/1", "upstream_failed 5")) == 0
    assert await board.post(notice("b/1", "it's 100 % \u2713", name="pause")) == 0
    found = {each.name: each for each in await board.read()}
    assert found["pause"].text == "it's 100 % \u2713"
    assert (found["open 0a1b"].owner, found["open 0a1b"].text) == ("a/1", "upstream_failed 5")
    assert 90 < found["pause"].seconds <= 100
    await board.remove("pause", "a/1")
    assert len(await board.read()) == 2
    await board.remove("pause", "b/1")
    assert [each.name for each in await board.read()] == ["open 0a1b"]


async def test_claim_is_the_first_ones_until_it_ends(board: NoticeBoard) -> None:
    assert await board.post(notice("a/1"), replace=False) == 0
    assert 90 < await board.post(notice("b/1"), replace=False) <= 100
    assert await board.post(notice("a/1"), replace=False) == 0
    assert await board.post(notice("a/1", seconds=0.05), replace=False) == 0
    await asyncio.sleep(0.1)
    assert list(await board.read()) == []
    assert await board.post(notice("b/1"), replace=False) == 0
    assert await board.post(notice("a/1")) == 0  # this one may replace it
    assert [each.owner for each in await board.read()] == ["a/1"]


async def test_one_of_many_claims_at_once_is_granted(board: NoticeBoard) -> None:
    claims = [board.post(notice(f"{number}"), replace=False) for number in range(20)]
    assert (await asyncio.gather(*claims)).count(0) == 1


async def test_notice_from_before_the_clock_was_set_back_does_not_hold(board: NoticeBoard) -> None:
    await board.post(notice("a/1", seconds=3600.0))
    assert list(await board.read()) == []
    assert await board.post(notice("b/1"), replace=False) == 0
