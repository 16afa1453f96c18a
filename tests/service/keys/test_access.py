"""Gateway keys: accepted headers, last use without the database, and no output that shows a key."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import secrets
import sqlite3
import traceback
from contextlib import asynccontextmanager, closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_gateway import authenticate

from hubgate.domain.errors import InvalidRequest, NotAuthenticated, NotFound, StoreFailed
from hubgate.domain.records import Key
from hubgate.service.keys.access import Access
from hubgate.store.database import Database
from hubgate.store.store import SqlStore
from hubgate.store.vault import Vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from hubgate.settings import Settings

OWN = "an-admin-key-of-my-own-29fk3"


class Parts(NamedTuple):
    """A gateway's keys over a real database, whose clock stands at 2,000 until it is set."""

    access: Access
    first_admin_key: str | None
    store: SqlStore
    now: list[float]


@asynccontextmanager
async def opened(settings: Settings, admin_key: str | None = None) -> AsyncIterator[Parts]:
    """One start of the gateway."""
    database = await Database.open(settings.database, patience=0.01)
    store = SqlStore(database, Vault([secrets.token_urlsafe(32)]))
    now = [1_000.0]
    try:
        access, first_admin_key = await Access.load(store, admin_key, lambda: now[0])
        now[0] = 2_000.0
        yield Parts(access, first_admin_key, store, now)
    finally:
        await database.close()


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Another program holds the database."""
    with closing(sqlite3.connect(settings.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def bearer(key: str) -> str:
    return f"Bearer {key}"


SPELLINGS: dict[str, Callable[[str], str]] = {
    "bearer": bearer,
    "lower case": lambda key: f"bearer {key}",
    "upper case": lambda key: f"BEARER {key}",
    "spaces": lambda key: f"  Bearer   {key}  ",
    "doubled": lambda key: f"Bearer Bearer {key}",
    "doubled, mixed": lambda key: f"Bearer bearer  {key}",
    "api key": lambda key: f"ApiKey {key}",
    "api key, lower case": lambda key: f"apikey {key}",
    "api key, encoded": lambda key: f"ApiKey {b64(f'some-id:{key}')}",
    "api key, encoded without padding": lambda key: f"ApiKey {b64(f'some-id:{key}').rstrip('=')}",
    "api key, encoded without id": lambda key: f"ApiKey {b64(f':{key}')}",
    "basic, as password": lambda key: f"Basic {b64(f'elastic:{key}')}",
    "basic, lower case": lambda key: f"basic {b64(f'elastic:{key}')}",
    "basic, as user": lambda key: f"Basic {b64(f'{key}:')}",
    "basic, without user": lambda key: f"Basic {b64(f':{key}')}",
}
WRONG: dict[str, Callable[[str], str]] = {
    "no scheme": lambda key: key,
    "unknown scheme": lambda key: f"Digest {key}",
    "cut": lambda key: f"Bearer {key[:-1]}",
    "longer": lambda key: f"Bearer {key}x",
    "other case": lambda key: f"Bearer {key.swapcase()}",
    "tripled": lambda key: f"Bearer Bearer Bearer {key}",
    "two": lambda key: f"Bearer {key}, Bearer {key}",
    "basic, user with a wrong password": lambda key: f"Basic {b64(f'{key}:wrong')}",
    "basic, not encoded": lambda key: f"Basic elastic:{key}",
    "api key, encoded as id": lambda key: f"ApiKey {b64(f'{key}:wrong')}",
    "only the id": lambda key: f"Bearer {key[:11]}",
    "the digest": lambda key: f"Bearer {hashlib.sha256(key.encode()).hexdigest()}",
    "beyond Latin-1": lambda key: f"Bearer {key}\u4e2d",
    "half a character": lambda key: f"Bearer {key}\ud800",
    "NUL": lambda key: f"Bearer \0{key}",
    "scheme alone": lambda _: "Bearer",
    "two schemes alone": lambda _: "Bearer Bearer ",
    "spaces alone": lambda _: "   ",
    "basic alone": lambda _: "Basic ",
    "basic of nothing": lambda _: "Basic Og==",
}


async def test_accepts_a_key_in_every_supported_header_form(settings: Settings) -> None:
    async with opened(settings) as gateway:
        key, plain = await gateway.access.create("dify")
        for spelling, spell in SPELLINGS.items():
            assert authenticate(gateway.access, spell(plain)).id == key.id, spelling


async def test_rejects_other_credentials_without_repeating_them(settings: Settings) -> None:
    async with opened(settings) as gateway:
        _, plain = await gateway.access.create("dify")
        for spelling, spell in WRONG.items():
            with pytest.raises(NotAuthenticated) as refused:
                authenticate(gateway.access, spell(plain))
            told = "".join(traceback.format_exception(refused.value))
            assert plain not in told, spelling
            assert "Authorization: Bearer hg_…" in refused.value.remedy


@pytest.mark.parametrize("nothing", [None, ""])
async def test_error_for_a_missing_key_explains_how_to_send_one(
    settings: Settings, nothing: str | None
) -> None:
    async with opened(settings) as gateway:
        with pytest.raises(NotAuthenticated, match="has no key") as refused:
            authenticate(gateway.access, nothing)
        assert "Authorization: Bearer" in refused.value.remedy


async def test_hugging_face_token_is_recognized_and_not_repeated(settings: Settings) -> None:
    async with opened(settings) as gateway:
        for header in ("Bearer hf_abcdefghijklmnop", f"Basic {b64('user:hf_abcdefghijklmnop')}"):
            with pytest.raises(NotAuthenticated, match="Hugging Face token") as refused:
                authenticate(gateway.access, header)
            assert "hf_abc" not in str(refused.value)


async def test_random_credentials_never_authenticate_or_raise(settings: Settings) -> None:
    async with opened(settings) as gateway:
        access = gateway.access

        @given(
            scheme=st.sampled_from(["", "Bearer ", "ApiKey ", "Basic ", "Bearer Bearer "]),
            rest=st.text(st.characters(), max_size=80)
            | st.binary(max_size=80).map(lambda raw: raw.decode("latin-1")),
        )
        def check(scheme: str, rest: str) -> None:
            for header in (
                scheme + rest,
                scheme + base64.b64encode(rest.encode("utf-8", "replace")).decode(),
            ):
                with pytest.raises(NotAuthenticated):
                    authenticate(access, header)

        check()


async def test_non_ascii_key_matches_the_bytes_that_clients_send(settings: Settings) -> None:
    own = "schlüssel-中文-مفتاح-0123456789"
    async with opened(settings, own) as gateway:
        assert authenticate(gateway.access, f"Bearer {own}".encode().decode("latin-1")).admin
        assert authenticate(gateway.access, f"Basic {b64(f'elastic:{own}')}").admin


async def test_first_start_creates_an_admin_key_and_shows_it_once(settings: Settings) -> None:
    async with opened(settings) as gateway:
        first = gateway.first_admin_key
        assert first is not None
        assert re.fullmatch(r"hg_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", first)
        assert authenticate(gateway.access, bearer(first)).admin
    async with opened(settings) as gateway:
        assert gateway.first_admin_key is None
        key = authenticate(gateway.access, bearer(first))
        assert (key.admin, key.name, key.id) == (True, "admin", first[3:11])


async def test_configured_admin_key_replaces_the_stored_one_and_is_never_stored_or_shown(
    settings: Settings,
) -> None:
    async with opened(settings) as gateway:
        first = gateway.first_admin_key
        assert first is not None
        _, other = await gateway.access.create("deputy", admin=True)
    async with opened(settings, OWN) as gateway:
        assert gateway.first_admin_key is None
        assert authenticate(gateway.access, bearer(OWN)).admin
        assert authenticate(gateway.access, bearer(other)).admin
        with pytest.raises(NotAuthenticated):
            authenticate(gateway.access, bearer(first))
        await gateway.access.flush()
        digests = {key.digest for key in await gateway.store.keys()}
        assert hashlib.sha256(OWN.encode()).digest() not in digests
        with pytest.raises(InvalidRequest, match="HUBGATE_ADMIN_KEY"):
            await gateway.access.revoke("admin")
    async with opened(settings) as gateway:
        assert authenticate(gateway.access, bearer(first)).admin
        with pytest.raises(NotAuthenticated):
            authenticate(gateway.access, bearer(OWN))


async def test_no_admin_key_is_created_when_one_is_configured(settings: Settings) -> None:
    async with opened(settings, OWN) as gateway:
        assert gateway.first_admin_key is None
        assert await gateway.store.keys() == []
    async with opened(settings) as gateway:
        assert gateway.first_admin_key, "without it, someone must still be able to get in"


async def test_listed_key_shows_only_public_fields(settings: Settings) -> None:
    async with opened(settings) as gateway:
        key, plain = await gateway.access.create("dify", default_endpoint="e5")
        assert key == Key(
            id=plain[3:11],
            name="dify",
            digest=hashlib.sha256(plain.encode()).digest(),
            created_at=2_000.0,
            default_endpoint="e5",
        )
        assert [listed.name for listed in gateway.access.list()] == ["admin", "dify"]
        assert plain[12:] not in repr(gateway.access.list())
        assert repr(key.digest) not in repr(key)


async def test_taken_name_leaves_the_key_that_has_it(settings: Settings) -> None:
    async with opened(settings) as gateway:
        first, plain = await gateway.access.create("dify")
        with pytest.raises(InvalidRequest, match="exists already"):
            await gateway.access.create("dify")
        other, _ = await gateway.access.create("other")
        with pytest.raises(InvalidRequest, match="exists already"):
            await gateway.access.change("other", name="dify")
        assert gateway.access.find("dify") == gateway.access.find(first.id) == first
        assert gateway.access.find("other") == other
        assert dict(gateway.access.names) == {key.id: key.name for key in gateway.access.list()}
        assert authenticate(gateway.access, f"Bearer {plain}").id == first.id
        await gateway.access.revoke("dify")
        assert first.id not in gateway.access.names
        assert gateway.access.valid_key(first.id) is None


async def test_created_key_survives_a_restart_and_a_revoked_one_is_rejected_at_once(
    settings: Settings,
) -> None:
    async with opened(settings) as gateway:
        by_name, first = await gateway.access.create("by name")
        by_id, second = await gateway.access.create("by id")
    async with opened(settings) as gateway:
        assert authenticate(gateway.access, bearer(first)).id == by_name.id
        await gateway.access.revoke("by name")
        await gateway.access.revoke(by_id.id)
        for plain in (first, second):
            with pytest.raises(NotAuthenticated):
                authenticate(gateway.access, bearer(plain))
        await gateway.access.create("by name")
    async with opened(settings) as gateway:
        with pytest.raises(NotAuthenticated):
            authenticate(gateway.access, bearer(first))


async def test_revoking_an_unknown_key_fails_without_repeating_it(settings: Settings) -> None:
    async with opened(settings) as gateway:
        _, plain = await gateway.access.create("dify")
        for which in ("nobody", "", plain):
            with pytest.raises(NotFound) as refused:
                await gateway.access.revoke(which)
            assert plain not in str(refused.value)


async def test_last_admin_key_cannot_be_revoked(settings: Settings) -> None:
    async with opened(settings) as gateway:
        gateway.access.admit_cli("the-command-lines-own")
        with pytest.raises(InvalidRequest, match="last admin key"):
            await gateway.access.revoke("admin")
        await gateway.access.create("deputy", admin=True, expires_at=3_000.0)
        gateway.now[0] = 3_000.0
        with pytest.raises(InvalidRequest, match="last admin key"):
            await gateway.access.revoke("admin")
        gateway.now[0] = 2_000.0
        await gateway.access.revoke("admin")
    async with opened(settings) as gateway:
        assert gateway.first_admin_key is None


async def test_concurrent_creation_with_the_same_name_succeeds_once(settings: Settings) -> None:
    async with opened(settings) as gateway:
        results = await asyncio.gather(
            *(gateway.access.create("dify") for _ in range(10)), return_exceptions=True
        )
        made = [result for result in results if not isinstance(result, BaseException)]
        assert len(made) == 1
        assert all(
            isinstance(result, InvalidRequest) for result in results if isinstance(result, BaseException)
        )
        assert [key.name for key in gateway.access.list()] == ["admin", "dify"]
        assert authenticate(gateway.access, bearer(made[0][1])).name == "dify"


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        " a",
        "a ",
        "a\nb",
        "a\0b",
        "\u202eevil",
        "x" * 101,
        "admin",
        "cli",
        "0123abcd",
        "hg_0123abcd_x",
        "hf_x",
    ],
)
async def test_rejects_a_misleading_key_name(settings: Settings, name: str) -> None:
    async with opened(settings) as gateway:
        with pytest.raises(InvalidRequest):
            await gateway.access.create(name)


@pytest.mark.parametrize("name", ["dify", "Dify, production (2)", "جستجو", "検索", "x" * 100])
async def test_key_name_may_be_in_any_language(settings: Settings, name: str) -> None:
    async with opened(settings) as gateway:
        key, _ = await gateway.access.create(name)
        assert key.name == name


async def test_last_use_is_visible_at_once_and_written_only_by_flush(settings: Settings) -> None:
    async with opened(settings) as gateway:
        _, plain = await gateway.access.create("dify")
        for now in (3_000.0, 4_000.0):
            gateway.now[0] = now
            authenticate(gateway.access, bearer(plain))
        assert [listed.last_used_at for listed in gateway.access.list()] == [None, 4_000.0]
        assert [stored.last_used_at for stored in await gateway.store.keys()] == [None, None]
        await gateway.access.flush()
        assert [stored.last_used_at for stored in await gateway.store.keys()] == [None, 4_000.0]
        gateway.now[0] = 5_000.0
        authenticate(gateway.access, bearer(plain))
        assert [listed.last_used_at for listed in gateway.access.list()] == [None, 5_000.0]
    async with opened(settings) as gateway:
        assert [listed.last_used_at for listed in gateway.access.list()] == [None, 4_000.0]


async def test_keys_authenticate_while_the_database_is_locked(settings: Settings) -> None:
    async with opened(settings) as gateway:
        key, plain = await gateway.access.create("dify")
        with locked(settings):
            assert authenticate(gateway.access, bearer(plain)).id == key.id
            with pytest.raises(StoreFailed):
                await gateway.access.flush()
            gateway.now[0] = 9_000.0
            authenticate(gateway.access, bearer(gateway.first_admin_key or ""))
        await gateway.access.flush()
        assert [stored.last_used_at for stored in await gateway.store.keys()] == [9_000.0, 2_000.0]


async def test_change_that_cannot_be_stored_is_rolled_back_unless_it_revokes_a_key(
    settings: Settings,
) -> None:
    async with opened(settings) as gateway:
        _, plain = await gateway.access.create("dify")
        with locked(settings):
            with pytest.raises(StoreFailed, match=r"\[dify\] is revoked, but this could not be stored"):
                await gateway.access.revoke("dify")
            with pytest.raises(StoreFailed):
                await gateway.access.create("other")
        with pytest.raises(NotAuthenticated):
            authenticate(gateway.access, bearer(plain))
        assert [key.name for key in gateway.access.list()] == ["admin"]
        assert [key.name for key in await gateway.store.keys()] == ["admin", "dify"]
        await gateway.access.flush()
        assert [key.name for key in await gateway.store.keys()] == ["admin"]


async def test_change_is_applied_and_stored_when_its_caller_is_cancelled(settings: Settings) -> None:
    async with opened(settings) as gateway:
        _, plain = await gateway.access.create("old")
        for change in (gateway.access.revoke("old"), gateway.access.create("new")):
            asker = asyncio.ensure_future(change)
            await asyncio.sleep(0)
            asker.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asker
        with pytest.raises(NotAuthenticated):
            authenticate(gateway.access, bearer(plain))
        assert [key.name for key in gateway.access.list()] == ["admin", "new"]
        assert [key.name for key in await gateway.store.keys()] == ["admin", "new"]


async def test_concurrent_rename_that_fails_is_rolled_back(settings: Settings) -> None:
    async with opened(settings) as gateway:
        await gateway.access.create("dify")
        _, plain = await gateway.access.create("kibana")
        renaming = (gateway.access.change("kibana", name="dify") for _ in range(2))
        results = await asyncio.gather(*renaming, return_exceptions=True)
        assert [type(result) for result in results] == [InvalidRequest, InvalidRequest]
        assert authenticate(gateway.access, bearer(plain)).name == "kibana"


async def test_failed_rename_does_not_restore_a_revoked_key(settings: Settings) -> None:
    async with opened(settings) as gateway:
        await gateway.access.create("dify")
        _, plain = await gateway.access.create("kibana")
        await asyncio.gather(
            gateway.access.change("kibana", name="dify"),
            gateway.access.revoke("kibana"),
            return_exceptions=True,
        )
        with pytest.raises(NotAuthenticated):
            authenticate(gateway.access, bearer(plain))


async def test_failed_change_is_rolled_back_when_its_caller_is_cancelled(settings: Settings) -> None:
    async with opened(settings) as gateway:
        await gateway.access.create("dify")
        _, plain = await gateway.access.create("kibana")
        for change in (gateway.access.change("kibana", name="dify"), gateway.access.create("dify")):
            asker = asyncio.ensure_future(change)
            await asyncio.sleep(0)
            asker.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asker
        assert [key.name for key in gateway.access.list()] == ["admin", "dify", "kibana"]
        assert authenticate(gateway.access, bearer(plain)).name == "kibana"


async def test_cli_key_is_valid_for_this_run_and_not_listed(settings: Settings) -> None:
    async with opened(settings) as gateway:
        gateway.access.admit_cli("the-command-lines-own")
        assert authenticate(gateway.access, "Bearer the-command-lines-own").admin
        await gateway.access.flush()
        assert [key.name for key in gateway.access.list()] == ["admin"]
        with pytest.raises(NotFound):
            await gateway.access.revoke("cli")
    async with opened(settings) as gateway:
        with pytest.raises(NotAuthenticated):
            authenticate(gateway.access, "Bearer the-command-lines-own")


async def test_no_key_is_in_the_database_or_the_log(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="sqlalchemy.engine")
    async with opened(settings, OWN) as gateway:
        _, plain = await gateway.access.create("dify")
        gateway.access.admit_cli("the-command-lines-own")
        for key in (plain, OWN, "the-command-lines-own"):
            authenticate(gateway.access, bearer(key))
        await gateway.access.flush()
        written = b"".join(path.read_bytes() for path in settings.home.iterdir())
        shown = repr(vars(gateway.access)) + caplog.text
        for key in (plain, plain[12:], OWN, "the-command-lines-own"):
            assert key.encode() not in written
            assert key not in shown
    assert "UPDATE keys" in caplog.text
