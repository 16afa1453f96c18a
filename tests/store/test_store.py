"""The store returns what was saved, also after a restart, and its files contain no plain secret."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
import secrets
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from hubgate.domain.chunking import ChunkingSettings
from hubgate.domain.endpoint import Endpoint, Engine, Facts, Similarity, Source, Target, Task
from hubgate.domain.errors import (
    EndpointConflict,
    EndpointExists,
    EndpointNotFound,
    InUse,
    InvalidRequest,
    NotFound,
    StoreFailed,
)
from hubgate.domain.records import Key
from hubgate.domain.secret import Secret
from hubgate.store.database import Database
from hubgate.store.store import SqlStore
from hubgate.store.vault import Vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hubgate.settings import Settings

TOKEN = Secret("hf_A-token/that+nobody=may-see-0123")
PLAIN = Endpoint(name="plain", task=Task.TEXT_EMBEDDING, source=Source.FAKE)
FULL = Endpoint(
    name="full",
    task=Task.RERANK,
    source=Source.DEDICATED,
    model="intfloat/multilingual-e5-base",
    url="https://example.org/embed/ünïcode?a=1",
    engine=Engine.TEI,
    similarity=Similarity.DOT_PRODUCT,
    dimensions=768,
    max_input_tokens=512,
    requests_per_minute=300,
    chunking=ChunkingSettings(strategy="recursive", max_chunk_size=100, separators=("\n\n", "\n")),
    facts=Facts(engine=Engine.TEI, engine_version="1.8", auto_truncate=False, warnings=("slow", "مدل")),
)
KEY = Key(id="0123abcd", name="dify", digest=bytes(range(32)), created_at=1_700_000_000.25)
with_key_file = pytest.mark.parametrize("kind", ["sqlite"])
"""For what a database that gateways share has not: a key file that hubgate creates and changes."""


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The tests of this module run on both databases."""
    kind: str = request.param
    return kind


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[SqlStore]:
    """The store during one run of the gateway."""
    store = await SqlStore.open(settings)
    try:
        yield store
    finally:
        await store.close()


async def stored(settings: Settings) -> dict[str, Secret | None]:
    async with opened(settings) as store:
        return {target.endpoint.name: target.token for target in await store.endpoints()}


async def change_by_hand(settings: Settings, sql: str, **values: object) -> None:
    database = await Database.open(settings.database_url or settings.database)
    await database.do(lambda c: c.execute(text(sql), values))
    await database.close()


async def test_endpoints_and_tokens_survive_a_restart(settings: Settings) -> None:
    async with opened(settings) as store:
        port: SqlStore = store
        await port.add_endpoint(Target(PLAIN))
        await port.add_endpoint(Target(FULL, TOKEN))
    async with opened(settings) as store:
        assert await store.endpoints() == [Target(FULL, TOKEN), Target(PLAIN)]


async def test_saving_replaces_settings_and_token(settings: Settings) -> None:
    changed = dataclasses.replace(FULL, requests_per_minute=7)
    for token in (Secret("hf_another-token"), None, TOKEN):
        async with opened(settings) as store:
            if not await store.endpoints():
                await store.add_endpoint(Target(FULL, TOKEN))
            version = (await store.endpoint("full")).version
            assert await store.save_endpoint(Target(changed, token, version)) == version + 1
            assert await store.endpoints() == [Target(changed, token)]


async def test_change_of_an_outdated_version_is_rejected(settings: Settings) -> None:
    async with opened(settings) as one, opened(settings) as other:
        await one.add_endpoint(Target(FULL, TOKEN))
        assert await one.save_endpoint(Target(FULL, None)) == 2
        with pytest.raises(EndpointConflict):
            await other.save_endpoint(Target(FULL, TOKEN))
        current = await other.endpoint("full")
        assert (current, current.version) == (Target(FULL), 2)
        assert await other.save_endpoint(Target(FULL, TOKEN, 2)) == 3
        with pytest.raises(EndpointNotFound):
            await other.endpoint("plain")


async def test_removed_endpoint_cannot_be_saved_and_frees_its_name(settings: Settings) -> None:
    async with opened(settings) as store:
        await store.add_endpoint(Target(FULL, TOKEN))
        await store.remove_endpoint("full")
        await store.remove_endpoint("full")
        with pytest.raises(EndpointNotFound):
            await store.save_endpoint(Target(FULL, TOKEN))
        assert await store.endpoints() == []
        await store.add_endpoint(Target(FULL))


async def test_concurrent_adds_of_one_name_succeed_once(settings: Settings) -> None:
    async with opened(settings) as one, opened(settings) as other:
        results = await asyncio.gather(
            *(store.add_endpoint(Target(PLAIN, TOKEN)) for store in (one, other) * 5), return_exceptions=True
        )
        assert sorted(str(type(result).__name__) for result in results) == ["EndpointExists"] * 9 + ["int"]
        assert await one.endpoints() == [Target(PLAIN, TOKEN)]
        with pytest.raises(EndpointExists):
            await one.add_endpoint(Target(PLAIN))


async def test_two_writers_on_one_file_lose_no_endpoints(settings: Settings) -> None:
    async with opened(settings) as one, opened(settings) as other:
        names = [f"e{number:02}" for number in range(60)]
        await asyncio.gather(
            *(
                (one, other)[index % 2].add_endpoint(Target(dataclasses.replace(PLAIN, name=name), TOKEN))
                for index, name in enumerate(names)
            )
        )
        assert [target.endpoint.name for target in await one.endpoints()] == names


async def test_cancelled_caller_does_not_cancel_the_write(settings: Settings) -> None:
    async with opened(settings) as store:
        caller = asyncio.create_task(store.add_endpoint(Target(PLAIN, TOKEN)))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await store.endpoints() == [Target(PLAIN, TOKEN)]


async def test_ignores_unknown_fields_and_defaults_missing_ones(
    settings: Settings,
) -> None:
    async with opened(settings) as store:
        await store.add_endpoint(Target(FULL, TOKEN))
    written = '{"name":"full","task":"text_embedding","source":"fake","colour":"blue","facts":{"taste":1}}'
    await change_by_hand(settings, "UPDATE endpoints SET settings = :written", written=written)
    async with opened(settings) as store:
        assert await store.endpoints() == [Target(dataclasses.replace(PLAIN, name="full"), TOKEN)]


@pytest.mark.parametrize(
    "written",
    [
        "no json",
        "{}",
        '{"name":"plain","task":"clairvoyance","source":"fake"}',
        '{"name":"plain","task":"rerank","source":"dedicated"}',
        '{"name":"plain","task":"rerank","source":"fake","chunking":{"strategy":"word"}}',
    ],
)
async def test_logs_and_skips_unreadable_endpoint(
    settings: Settings, caplog: pytest.LogCaptureFixture, written: str
) -> None:
    async with opened(settings) as store:
        await store.add_endpoint(Target(PLAIN, TOKEN))
        await store.add_endpoint(Target(FULL, TOKEN))
    await change_by_hand(settings, "UPDATE endpoints SET settings = :w WHERE name = 'plain'", w=written)
    assert await stored(settings) == {"full": TOKEN}
    assert "endpoint plain is left out" in caplog.text


async def test_token_copied_to_another_row_does_not_decrypt(settings: Settings) -> None:
    async with opened(settings) as store:
        await store.add_endpoint(Target(PLAIN, Secret("hf_mine-and-only-mine")))
        await store.add_endpoint(Target(FULL, TOKEN))
    await change_by_hand(
        settings,
        "UPDATE endpoints SET (token_key, token_box) = (SELECT token_key, token_box FROM endpoints WHERE name = 'full')",
    )
    assert await stored(settings) == {"full": TOKEN, "plain": None}


@with_key_file
async def test_opens_without_the_secret_key_and_recovers_when_it_is_restored(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(settings) as store:
        await store.add_endpoint(Target(FULL, TOKEN))
        await store.add_endpoint(Target(PLAIN))
    kept = settings.secret_key_file.rename(settings.secret_key_file.with_name("elsewhere"))
    changed = dataclasses.replace(FULL, requests_per_minute=1)
    async with opened(settings) as store:
        assert await store.endpoints() == [Target(FULL), Target(PLAIN)]
        assert "endpoint full has no usable token" in caplog.text
        assert "Put that key back" in caplog.text
        await store.save_endpoint(Target(changed))
        assert await store.reseal() == 0
    kept.rename(settings.secret_key_file)
    async with opened(settings) as store:
        assert await store.endpoints() == [Target(changed, TOKEN), Target(PLAIN)]


@with_key_file
async def test_new_token_replaces_one_that_cannot_be_decrypted(settings: Settings) -> None:
    async with opened(settings) as store:
        await store.add_endpoint(Target(FULL, TOKEN))
    settings.secret_key_file.unlink()
    async with opened(settings) as store:
        await store.save_endpoint(Target(FULL, Secret("hf_the-new-one")))
    assert await stored(settings) == {"full": Secret("hf_the-new-one")}


@with_key_file
async def test_rotation_encrypts_every_token_with_a_new_key(settings: Settings) -> None:
    async with opened(settings) as store:
        for name in ("a", "b", "c"):
            await store.add_endpoint(
                Target(dataclasses.replace(PLAIN, name=name), Secret(f"hf_token-of-{name}"))
            )
        await store.add_endpoint(Target(FULL))
        assert await store.reseal() == 0
        assert await store.rotate_secret() == 3
        before = {target.endpoint.name: target.token for target in await store.endpoints()}
    file = settings.secret_key_file
    old = file.read_text().splitlines()[-1]
    file.write_text(file.read_text().replace(old, ""))
    assert (
        await stored(settings)
        == before
        == {
            **{name: Secret(f"hf_token-of-{name}") for name in ("a", "b", "c")},
            "full": None,
        }
    )


@with_key_file
async def test_resumes_interrupted_rotation_without_another_key(settings: Settings) -> None:
    async with opened(settings) as store:
        await store.add_endpoint(Target(FULL, TOKEN))
    Vault.from_settings(settings).rotate()
    before = settings.secret_key_file.read_text()
    async with opened(settings) as store:
        assert await store.rotate_secret() == 1
        assert await store.endpoints() == [Target(FULL, TOKEN)]
    assert settings.secret_key_file.read_text() == before


async def test_rotates_environment_keys_by_prepending_a_new_one(settings: Settings) -> None:
    old, new = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    async with opened(dataclasses.replace(settings, secret_keys=(old,))) as store:
        await store.add_endpoint(Target(FULL, TOKEN))
        with pytest.raises(StoreFailed, match="HUBGATE_SECRET_KEY"):
            await store.rotate_secret()
    async with opened(dataclasses.replace(settings, secret_keys=(new, old))) as store:
        assert await store.rotate_secret() == 1
    assert await stored(dataclasses.replace(settings, secret_keys=(new,))) == {"full": TOKEN}


async def test_keys_survive_a_restart_with_all_fields(settings: Settings) -> None:
    younger = Key(
        id="b", name="cli", digest=bytes(32), created_at=1_800_000_000, admin=True, default_endpoint="e5"
    )
    async with opened(settings) as store:
        await store.add_key(younger)
        await store.add_key(KEY)
        await store.touch_keys({"0123abcd": 1_750_000_000.5, "unknown": 1.0})
        await store.touch_keys({})
    async with opened(settings) as store:
        assert await store.keys() == [dataclasses.replace(KEY, last_used_at=1_750_000_000.5), younger]
        await store.remove_key(KEY.id)
        await store.remove_key(KEY.id)
        assert await store.keys() == [younger]


async def test_rejects_duplicate_key_name(settings: Settings) -> None:
    async with opened(settings) as store:
        await store.add_key(KEY)
        with pytest.raises(InvalidRequest, match=r"\[dify\] exists"):
            await store.add_key(dataclasses.replace(KEY, id="other", digest=bytes(32)))
        assert await store.keys() == [KEY]


async def test_two_writers_keep_each_others_changes_of_a_key(settings: Settings) -> None:
    async with opened(settings) as one, opened(settings) as other:
        await one.add_key(KEY)
        await one.save_key(dataclasses.replace(KEY, requests_per_minute=60), KEY)
        await other.save_key(dataclasses.replace(KEY, bulk=True), KEY)
        await one.touch_keys({KEY.id: 2.0})
        await other.touch_keys({KEY.id: 1.0})
        expected = dataclasses.replace(KEY, requests_per_minute=60, bulk=True, last_used_at=2.0)
        assert await other.keys() == [expected]
        await one.remove_key(KEY.id)
        with pytest.raises(NotFound, match="was revoked"):
            await other.save_key(dataclasses.replace(expected, bulk=False), expected)
        assert await one.keys() == []


async def test_only_one_gateway_applies_a_configuration(settings: Settings, kind: str) -> None:
    async with opened(settings) as one, opened(settings) as other:
        async with one.applying_configuration():
            await one.add_endpoint(Target(PLAIN))
            if kind == "sqlite":
                return  # the lock of the home keeps other gateways away
            with pytest.raises(InUse, match="Another gateway is applying"):
                async with other.applying_configuration():
                    pass
        async with other.applying_configuration():
            pass


async def test_notes_persist_and_can_be_replaced(settings: Settings) -> None:
    async with opened(settings) as store:
        assert await store.note("first start") is None
        await store.set_note("first start", "1")
        await store.set_note("first start", "2")
        await store.set_note("other", "")
    async with opened(settings) as store:
        assert (await store.note("first start"), await store.note("other")) == ("2", "")


@with_key_file
async def test_no_secret_appears_in_files_logs_or_errors(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("sqlalchemy.engine", "sqlalchemy.pool", "alembic"):
        caplog.set_level(logging.DEBUG, logger=name)
    errors: list[BaseException] = []
    async with opened(settings) as store:
        await store.add_endpoint(Target(FULL, TOKEN))
        await store.save_endpoint(Target(FULL, TOKEN))
        await store.rotate_secret()
        await store.endpoints()
        with pytest.raises(EndpointExists) as exists:
            await store.add_endpoint(Target(FULL, TOKEN))
        await store.database.do(lambda c: c.exec_driver_sql("DROP TABLE endpoints"))
        with pytest.raises(StoreFailed) as failed:
            await store.add_endpoint(Target(PLAIN, TOKEN))
        errors += [exists.value, failed.value]
        written = b"".join(path.read_bytes() for path in settings.home.iterdir())
        shown = repr(vars(store)) + repr(vars(store._tokens._vault))
    assert "INSERT INTO endpoints" in caplog.text, "the statements were logged"
    output = caplog.text + shown + "".join("".join(traceback.format_exception(error)) for error in errors)
    secret_keys = settings.secret_key_file.read_text().split()[-2:]
    for secret in (TOKEN.reveal(), *secret_keys):
        raw = secret.encode()
        for form in (
            raw,
            base64.b64encode(raw).rstrip(b"="),
            base64.urlsafe_b64encode(raw).rstrip(b"="),
            raw.hex().encode(),
        ):
            assert form not in written
            assert form.decode() not in output
