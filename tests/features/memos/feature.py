"""Memos: what opens with the gateway."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Column, Connection, MetaData, Table, Text, func, insert, select

from hubgate.features.feature import Core, Feature
from hubgate.store.schema.versions import Schema
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.console.page_context import NavigationEntry, PageContext
from hubgate.web.http.asgi import decode, read_json_body
from hubgate.web.parts import Page, Parts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from hubgate.store.database import Database

metadata = MetaData()
memos = Table("memos", metadata, Column("text", Text, primary_key=True))


class Memo(msgspec.Struct):
    """The body of `POST /api/memos`."""

    text: str


class Memos:
    """Texts that an admin keeps."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._added = 0

    async def texts(self) -> list[str]:
        return await self._database.do(lambda c: list(c.execute(select(memos.c.text)).scalars()))

    async def list(self, _: Request) -> Response:
        return json_response({"memos": await self.texts()})

    async def add(self, request: Request) -> Response:
        memo = decode(await read_json_body(request), msgspec.json.Decoder(Memo))

        def work(connection: Connection) -> int:
            connection.execute(insert(memos).values(text=memo.text))
            return connection.execute(select(func.count()).select_from(memos)).scalar_one()

        self._added += 1
        return json_response({"memos": await self._database.do(work)}, 201)

    async def show(self, context: PageContext) -> Response:
        return context.render("memos/list.html", memos=await self.texts())

    def metrics(self) -> Iterator[str]:
        yield f"hubgate_memos_added_total {self._added}\n"


@asynccontextmanager
async def _open(core: Core) -> AsyncIterator[Parts]:
    mine = Memos(core.store.database)
    yield Parts(
        api=(
            ApiRoute(method="GET", path="/memos", handler=mine.list, summary="Returns all memos."),
            ApiRoute(
                method="POST", path="/memos", handler=mine.add, summary="Adds a memo.", body=Memo, status=201
            ),
        ),
        pages=(Page("GET", "/ui/memos", mine.show),),
        navigation=(NavigationEntry(65, "memos", "/ui/memos"),),
        metrics=(mine.metrics,),
    )


FEATURE = Feature(open=_open, folder=Path(__file__).parent, schema=Schema(part="memos", metadata=metadata))
