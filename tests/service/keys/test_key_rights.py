"""The rights of a key: its endpoints, its expiry, and how it is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from scripted_gateway import authenticate

from hubgate.domain.errors import InvalidRequest, NotAuthenticated, NotFound, StoreFailed
from hubgate.service.keys.access import Access

if TYPE_CHECKING:
    from hubgate.store.store import SqlStore


@dataclass
class Hands:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def hands() -> Hands:
    return Hands()


@pytest.fixture
async def access(store: SqlStore, hands: Hands) -> Access:
    loaded, _ = await Access.load(store, "an-admin-key-of-the-environment", hands)
    return loaded


async def test_rights_survive_a_restart(access: Access, store: SqlStore) -> None:
    rights: dict[str, Any] = {
        "endpoints": ("e5", "e6"),
        "default_endpoint": "e6",
        "requests_per_minute": 60,
        "tokens_per_minute": 1000,
        "expires_at": 2000.0,
    }
    key, _ = await access.create("dify", **rights)
    assert key.may_call("e5")
    assert not key.may_call("minilm")
    again, _ = await Access.load(store, None, Hands())
    assert again.find("dify") == key
    assert {name: getattr(again.find(key.id), name) for name in rights} == rights


async def test_expired_key_is_rejected_with_its_expiry(access: Access, hands: Hands) -> None:
    _, plain = await access.create("dify", expires_at=1500.0)
    assert authenticate(access, f"Bearer {plain}").name == "dify"
    hands.now = 1500.0
    with pytest.raises(NotAuthenticated, match=r"The key \[dify\] expired at 1970-01-01 00:25 UTC"):
        authenticate(access, f"Bearer {plain}")


async def test_changed_key_keeps_its_secret_and_gets_its_new_rights_at_once(
    access: Access, store: SqlStore
) -> None:
    key, plain = await access.create("dify")
    changed = await access.change("dify", name="dify two", bulk=True, endpoints=("e5",))
    assert authenticate(access, f"Bearer {plain}").endpoints == ("e5",)
    assert (changed.id, changed.digest, changed.bulk) == (key.id, key.digest, True)
    (stored,) = await store.keys()
    assert (stored.name, stored.bulk, stored.endpoints) == ("dify two", True, ("e5",))


async def test_expired_key_can_be_changed_and_given_a_new_expiry(access: Access, hands: Hands) -> None:
    _, plain = await access.create("dify", expires_at=1500.0)
    hands.now = 1600.0
    await access.change("dify", bulk=True)
    with pytest.raises(InvalidRequest, match="in the past"):
        await access.change("dify", expires_at=1550.0)
    await access.change("dify", expires_at=None)
    assert authenticate(access, f"Bearer {plain}").bulk


@pytest.mark.parametrize(
    ("rights", "told"),
    [
        ({"admin": True, "endpoints": ("e5",)}, "An admin key can access every endpoint"),
        ({"endpoints": ("e5",), "default_endpoint": "e6"}, "may not call its default endpoint"),
        ({"requests_per_minute": 0}, "from 1 to 1000000"),
        ({"requests_per_minute": 1_000_001}, "from 1 to 1000000"),
        ({"tokens_per_minute": -1}, "tokens_per_minute"),
        ({"expires_at": 1000.0}, "in the past"),
        ({"expires_at": 1_924_992_000_000.0}, "must be before the year 10000"),
        ({"expires_at": float("nan")}, "must be before the year"),
    ],
)
async def test_rejects_conflicting_rights(access: Access, rights: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        await access.create("dify", **rights)
    await access.create("dify", admin=rights.get("admin", False))
    with pytest.raises(InvalidRequest, match=told):
        await access.change("dify", **rights)
    assert access.find("dify").endpoints == ()


async def test_rejected_key_change_leaves_the_key_unchanged(access: Access, store: SqlStore) -> None:
    await access.create("one")
    await access.create("two")
    with pytest.raises(InvalidRequest, match="exists already"):
        await access.change("one", name="two", bulk=True)
    with pytest.raises(InvalidRequest, match="looks like a key"):
        await access.change("one", name="hg_x")
    with pytest.raises(InvalidRequest, match="HUBGATE_ADMIN_KEY"):
        await access.change("admin", bulk=True)
    with pytest.raises(NotFound):
        await access.change("three", bulk=True)
    await store.database.do(lambda c: c.exec_driver_sql("DROP TABLE keys"))
    with pytest.raises(StoreFailed):
        await access.change("one", bulk=True)
    assert not access.find("one").bulk
