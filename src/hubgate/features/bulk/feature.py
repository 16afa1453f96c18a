"""Bulk jobs: what opens with the gateway, which is files and batches of OpenAI's API."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hubgate.features.bulk.api import JobsApi
from hubgate.features.bulk.batches.batches import Batches
from hubgate.features.bulk.batches.files import Files
from hubgate.features.bulk.batches.folder import FilesFolder
from hubgate.features.bulk.batches.model import Objects
from hubgate.features.bulk.batches.post import WebhookPost
from hubgate.features.bulk.batches.room import Room
from hubgate.features.bulk.batches.store import SCHEMA, SqlBatches
from hubgate.features.bulk.batches.webhook import Webhook
from hubgate.features.bulk.face.batches import BatchesApi
from hubgate.features.bulk.face.files import FilesApi
from hubgate.features.bulk.pages import AUDIT_VERBS, JobsPage
from hubgate.features.feature import Core, Feature
from hubgate.settings import InvalidSetting
from hubgate.web.console.page_context import NavigationEntry
from hubgate.web.http.internal import RowCaller
from hubgate.web.parts import Parts


@asynccontextmanager
async def _open(core: Core) -> AsyncIterator[Parts]:
    batches = _batches(core)

    @asynccontextmanager
    async def serving(call: RowCaller) -> AsyncIterator[None]:
        await batches.start(call)
        try:
            yield
        finally:
            await batches.close()

    limits = core.access.limits
    yield Parts(
        api=JobsApi(core.gateway, batches, core.access).routes(),
        routes=(*FilesApi(batches.files, limits).routes(), *BatchesApi(batches, limits).routes()),
        pages=JobsPage(core.gateway, batches, core.access).pages(),
        navigation=(NavigationEntry(50, "jobs", "/ui/jobs"),),
        audit_verbs=AUDIT_VERBS,
        serving=(serving,),
    )


def _batches(core: Core) -> Batches:
    settings, store = core.settings, SqlBatches(core.store.database)
    folder = FilesFolder(settings.files, _objects(settings.files_url) if settings.files_url else None)
    room = Room(store, folder, total_bytes=settings.files_total_bytes, key_bytes=settings.files_key_bytes)
    files = Files(store, folder, room, max_bytes=settings.files_max_bytes, days=settings.files_days)
    webhook = None
    if settings.webhook_url:
        post = WebhookPost(settings.webhook_url)
        webhook = Webhook(post, settings.webhook_secret or "", time.time)
    return Batches(
        store,
        files,
        core.access,
        core.store.audit,
        webhook=webhook,
        max_row_bytes=settings.max_body_bytes,
        alone=settings.database_url is None,
    )


def _objects(url: str) -> Objects:
    """The object store with the files of batches.

    Raises:
        InvalidSetting: it cannot be used.
    """
    try:
        from hubgate.features.bulk.batches.objects import ObjectStorage  # noqa: PLC0415 - part of an extra
    except ModuleNotFoundError:
        raise InvalidSetting(
            "HUBGATE_FILES is in an object store, which needs obstore. Install hubgate[objects]."
        ) from None
    try:
        return ObjectStorage(url)
    except OSError as error:
        raise InvalidSetting(f"HUBGATE_FILES cannot be used: {error.strerror}.") from error


FEATURE = Feature(open=_open, folder=Path(__file__).parent, schema=SCHEMA)
