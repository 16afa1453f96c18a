"""The audit log records every stored change: who, what, before and after, and no secrets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from stub_sources import dedicated

from hubgate.domain.endpoint import Facts, Target
from hubgate.domain.errors import EndpointExists, InvalidRequest
from hubgate.domain.records import ACTOR, Connection, Key
from hubgate.domain.secret import Secret
from hubgate.store.audit_log import SqlAudit

if TYPE_CHECKING:
    from hubgate.domain.records import Change
    from hubgate.store.store import SqlStore

ONE, TWO = Secret("hf_" + "one" * 8), Secret("hf_" + "two" * 8)
KEY = Key(id="0a1b2c3d", name="dify", digest=bytes(32), created_at=1.0, endpoints=("e5", "e6"))


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The tests of this module run on both databases."""
    kind: str = request.param
    return kind


async def lines(store: SqlStore) -> list[Change]:
    return [change for _, change in await store.audit.read(100)]


async def test_records_endpoint_changes(store: SqlStore) -> None:
    await store.add_endpoint(Target(dedicated(), ONE))
    changed = dedicated(requests_per_minute=5, facts=Facts(model="org/model"))
    await store.save_endpoint(Target(changed, TWO))
    await store.remove_endpoint("e5")
    await store.remove_endpoint("e5")
    removed, saved, added = await lines(store)
    assert [line.verb for line in (added, saved, removed)] == [
        "endpoint.add",
        "endpoint.change",
        "endpoint.remove",
    ]
    assert {line.subject for line in (added, saved, removed)} == {"e5"}
    assert added.changes["requests_per_minute"] == [None, 3000]
    assert saved.changes == {
        "requests_per_minute": [3000, 5],
        "token": ["…eone", "…otwo"],
        "learned.model": [None, "org/model"],
    }
    assert removed.changes == {}


async def test_records_key_changes_without_the_key(store: SqlStore) -> None:
    await store.add_key(KEY)
    await store.save_key(replace(KEY, name="dify two", endpoints=(), requests_per_minute=60), KEY)
    await store.touch_keys({KEY.id: 2.0})
    assert await store.keys() == [
        replace(KEY, name="dify two", endpoints=(), requests_per_minute=60, last_used_at=2.0)
    ]
    await store.remove_key(KEY.id)
    revoked, changed, created = await lines(store)
    assert (created.verb, changed.verb, revoked.verb) == ("key.create", "key.change", "key.revoke")
    assert created.changes["endpoints"] == [None, ["e5", "e6"]]
    assert changed.changes == {
        "name": ["dify", "dify two"],
        "endpoints": [["e5", "e6"], None],
        "requests_per_minute": [None, 60],
    }
    assert not {"digest", "last_used_at"} & {*created.changes, *changed.changes}


@pytest.mark.parametrize("kind", ["sqlite"])  # with a key file, which can be rotated
async def test_records_connection_changes_with_masked_tokens(store: SqlStore) -> None:
    await store.connections.put(Connection(name="hf", token=ONE, created_at=1.0))
    await store.connections.put(Connection(name="hf", token=TWO, created_at=2.0))
    assert await store.connections.all() == [Connection(name="hf", token=TWO, created_at=1.0)]
    assert await store.rotate_secret() == 1
    assert await store.connections.all() == [Connection(name="hf", token=TWO, created_at=1.0)]
    await store.connections.remove("hf")
    await store.connections.remove("hf")
    assert await store.connections.all() == []
    entries = [(line.verb, line.subject, line.changes) for line in await lines(store)]
    assert entries == [
        ("connection.remove", "hf", {}),
        ("secret.rotate", "", {"resealed": [None, 1]}),
        ("connection.change", "hf", {"token": ["…eone", "…otwo"]}),
        ("connection.add", "hf", {"token": [None, "…eone"], "hosts": [None, ["huggingface"]]}),
    ]
    assert ONE.reveal() not in json.dumps(entries)


async def test_entries_name_the_actor_and_failures_are_not_recorded(store: SqlStore) -> None:
    await store.add_endpoint(Target(dedicated()))
    ACTOR.set("0a1b2c3d")
    await store.add_key(KEY)
    with pytest.raises(EndpointExists):
        await store.add_endpoint(Target(dedicated()))
    with pytest.raises(InvalidRequest):
        await store.add_key(replace(KEY, id="other", digest=bytes(31)))
    await store.audit.record("cache.clear", "")
    assert [(line.who, line.verb) for line in await lines(store)] == [
        ("0a1b2c3d", "cache.clear"),
        ("0a1b2c3d", "key.create"),
        ("gate", "endpoint.add"),
    ]


async def test_audit_log_is_bounded_and_paginated(store: SqlStore) -> None:
    audit = SqlAudit(store.database, max_entries=3)
    for number in range(5):
        await audit.record("test.run", str(number))
    page = await audit.read(2)
    assert [change.subject for _, change in page] == ["4", "3"]
    assert [change.subject for _, change in await audit.read(2, before=page[-1][0])] == ["2"]
