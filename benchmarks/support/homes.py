"""A home like that of a large installation: its rows are written directly, without asking any server."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import msgspec

from hubgate.domain.calls import CachedVector
from hubgate.domain.endpoint import Endpoint, Engine, Facts, Source, Task
from hubgate.domain.records import DAY, HOUR
from hubgate.features.usage.store import usage
from hubgate.settings import Settings
from hubgate.store.store import SqlStore
from hubgate.store.vectors.log import VectorLog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIMENSIONS = 8
CHATS = 100
_PAIRS = 1000
"""Pairs of an endpoint and a key in the usage of one hour."""
_VECTORS_AT_ONCE = 1000


def fill(
    home: Path, url: str, *, endpoints: int = 1, keys: int = 0, usage_rows: int = 0, vectors: int = 0
) -> None:
    """Make a home.

    Args:
        home: the folder.
        url: of the server of all endpoints (`paced_model.py`); each has a path of its own.
        endpoints: how many embedding endpoints it has, `e0`, `e1` and so on. A hundred more, `c0` to `c99`, chat.
        keys: how many keys, `app0` and so on.
        usage_rows: half are hours, half are days, as hubgate keeps them.
        vectors: how many are in the cache on disk.
    """
    settings = Settings(home=home, secret_key_file=home.parent / "secret.key")
    asyncio.run(_create(settings))
    with sqlite3.connect(settings.database) as database:
        _insert(database, "endpoints", (_embedding(number, url) for number in range(endpoints)))
        _insert(database, "endpoints", (_chat(number, url) for number in range(CHATS)))
        _insert(database, "keys", (_key(number) for number in range(keys)))
        _insert(database, "notes", [{"name": "ready endpoint", "value": "not needed"}])
        _fill_usage(database, usage_rows)
    database.close()
    if vectors:
        _fill_vectors(settings, vectors)


async def _create(settings: Settings) -> None:
    store = await SqlStore.open(settings)
    await store.close()


def _insert(database: sqlite3.Connection, table: str, rows: Any) -> None:
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    names, marks = ", ".join(first), ", ".join(f":{name}" for name in first)
    statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - our own names
    database.execute(statement, first)
    database.executemany(statement, rows)


def _embedding(number: int, url: str) -> dict[str, Any]:
    facts = Facts(engine=Engine.OPENAI, model="paced", dimensions=DIMENSIONS)
    return _endpoint(f"{number:032x}", f"e{number}", Task.TEXT_EMBEDDING, f"{url}/fixed-1/{number}", facts)


def _chat(number: int, url: str) -> dict[str, Any]:
    facts = Facts(engine=Engine.OPENAI, model="paced", chats=True)
    return _endpoint(f"c{number:031x}", f"c{number}", Task.CHAT_COMPLETION, f"{url}/chat-600/{number}", facts)


def _endpoint(row_id: str, name: str, task: Task, url: str, facts: Facts) -> dict[str, Any]:
    endpoint = Endpoint(
        name=name,
        task=task,
        source=Source.DEDICATED,
        url=url,
        requests_per_minute=1_000_000_000,
        facts=facts,
    )
    return {"id": row_id, "name": name, "settings": msgspec.json.encode(endpoint).decode()}


def _key(number: int) -> dict[str, Any]:
    digest = hashlib.sha256(b"%d" % number).digest()
    named = {"id": f"{number:08x}", "name": f"app{number}", "digest": digest}
    return {**named, "created_at": float(number), "admin": False}


def _fill_usage(database: sqlite3.Connection, rows: int) -> None:
    """Rows of hours and of days, alternately, from the newest on. SQLite counts, as Python would take minutes."""
    today = int(time.time()) // DAY * DAY
    counts = {
        "requests": 60,
        "texts": 480,
        "interactive_20": 60,
        "interactive_fastest": 0.05,
        "interactive_slowest": 0.1,
    }
    required = {column.name: 0 for column in usage.c if not (column.nullable or column.server_default)}
    values = {**required, **counts, "span": f"iif(odd, {HOUR}, {DAY})"}
    values["at"] = (
        f"iif(odd, {today} - pair / {_PAIRS} * {HOUR}, {today} - {35 * DAY} - pair / {_PAIRS} * {DAY})"
    )
    values["endpoint"] = f"'e' || (pair % {_PAIRS})"
    values["key"] = f"printf('%08x', pair % {_PAIRS})"
    numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :rows)"
    source = f"{numbers} SELECT {', '.join(map(str, values.values()))} FROM (SELECT i % 2 AS odd, i / 2 AS pair FROM n)"  # noqa: S608
    if rows:
        database.execute(f"INSERT INTO usage ({', '.join(values)}) {source}", {"rows": rows})


def _fill_vectors(settings: Settings, count: int) -> None:
    log = VectorLog(settings.vectors, settings.cache_bytes)
    while log.load():
        pass
    for vectors in _vectors(count):
        log.write(vectors)
    log.close()


def _vectors(count: int) -> Iterator[dict[bytes, CachedVector]]:
    vector = CachedVector(bytes(4 * DIMENSIONS), 12)
    for first in range(0, count, _VECTORS_AT_ONCE):
        numbers = range(first, min(first + _VECTORS_AT_ONCE, count))
        yield {hashlib.blake2b(b"%d" % number, digest_size=32).digest(): vector for number in numbers}
