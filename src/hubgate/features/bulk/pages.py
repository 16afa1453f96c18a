"""The jobs page: batches of all keys, how far they are, and their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import FileResponse, Response

from hubgate.domain.errors import NotFound, StoreFailed
from hubgate.features.bulk.batch_estimate import estimate_batch
from hubgate.features.bulk.batches.batches import Batches, NewBatch, can_resume
from hubgate.features.bulk.batches.model import Batch, Purpose
from hubgate.features.bulk.batches.model import Page as ListPage
from hubgate.features.bulk.face.uploads import FORM_BYTES, UploadForm
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.web.console.page_context import PageContext
from hubgate.web.http.request_context import context_of, key_of
from hubgate.web.parts import Page

_PER_PAGE = 50
_KEYS = 20
"""Of the keys that hold files, those that hold most."""
_WINDOWS = ("24h", "7d", "30d")
AUDIT_VERBS = ("job.cancel", "job.resume")


class JobsPage:
    def __init__(
        self,
        gateway: Gateway,
        batches: Batches,
        access: Access,
    ) -> None:
        self._gateway = gateway
        self._batches = batches
        self._access = access

    async def show(self, context: PageContext) -> Response:
        """A page of jobs, newest first."""
        after = context.request.query_params.get("after")
        found = await self._batches.list(key_of(context.request.scope), ListPage(_PER_PAGE + 1, after))
        jobs = found[:_PER_PAGE]
        older = jobs[-1].id if len(found) > _PER_PAGE else None
        room = await self._room() if after is None else None
        return self._render(
            context, "bulk/list.html", jobs=jobs, older=older, is_first=after is None, room=room
        )

    async def upload(self, context: PageContext) -> Response:
        """Store a file of requests, and show its estimate."""
        scope, files = context.request.scope, self._batches.files
        context_of(scope).upload_bytes = files.max_bytes + FORM_BYTES
        upload = await files.upload(key_of(scope))
        try:
            form = UploadForm(upload)
            await form.read(context.request.receive, context.request.headers.get("content-type", ""))
            context.check_csrf_token(form.fields.get("csrf", ""))
            file = await files.add(
                upload, key_of(scope), name=form.filename or "", purpose=Purpose.BATCH, seconds=None
            )
        finally:
            await upload.discard()
        return context.redirect(f"/ui/jobs/estimate/{file.id}")

    async def estimate(self, context: PageContext) -> Response:
        """What a batch of an uploaded file would take, and the button that starts it."""
        key, file_id = key_of(context.request.scope), context.request.path_params["file"]
        file = await self._batches.files.find(key, file_id)
        found = await estimate_batch(self._gateway, self._batches, key, file_id)
        return self._render(context, "bulk/estimate.html", file=file, found=found, windows=_WINDOWS)

    async def start(self, context: PageContext) -> Response:
        form = await context.form()
        new = NewBatch(
            input_file=context.request.path_params["file"],
            path=form.get("path", ""),
            window=form.get("window", ""),
        )
        job = await self._batches.create(key_of(context.request.scope), new)
        return context.redirect(f"/ui/jobs/{job.id}")

    async def detail(self, context: PageContext) -> Response:
        return self._render(context, "bulk/detail.html", job=await self._find(context))

    async def progress(self, context: PageContext) -> Response:
        """The part of the job's page that changes."""
        return self._render(context, "bulk/progress.html", job=await self._find(context))

    async def ask_cancel(self, context: PageContext) -> Response:
        return self._render(context, "bulk/cancel.html", job=await self._find(context))

    async def cancel(self, context: PageContext) -> Response:
        job = await self._batches.cancel(key_of(context.request.scope), context.request.path_params["job"])
        return context.redirect(f"/ui/jobs/{job.id}")

    async def resume(self, context: PageContext) -> Response:
        job = await self._batches.resume(key_of(context.request.scope), context.request.path_params["job"])
        return context.redirect(f"/ui/jobs/{job.id}")

    async def download(self, context: PageContext) -> Response:
        """The output or the error file."""
        job = await self._find(context)
        is_output = context.request.path_params["file"] == "output"
        file_id = job.output_file if is_output else job.error_file
        if file_id is None:
            raise NotFound("This job has no such file.")
        file, path = await self._batches.files.content(key_of(context.request.scope), file_id)
        return FileResponse(path, media_type="application/x-ndjson", filename=file.name)

    async def _room(self) -> Mapping[str, Any]:
        """How much room the files take, and which keys hold most of it."""
        files = self._batches.files
        try:
            used, keys = await files.held()
        except StoreFailed as error:
            return {"error": error}
        return {
            "error": None,
            "used": used,
            "most": files.room.total_bytes,
            "share": files.room.key_bytes,
            "keys": keys[:_KEYS],
            "more": len(keys[_KEYS:]),
        }

    async def _find(self, context: PageContext) -> Batch:
        return await self._batches.find(key_of(context.request.scope), context.request.path_params["job"])

    def _render(self, context: PageContext, template: str, **values: Any) -> Response:
        names = self._access.names
        return context.render(template, names=names, can_resume=can_resume, **values)

    def pages(self) -> Sequence[Page]:
        return (
            Page("GET", "/ui/jobs", self.show),
            Page("POST", "/ui/jobs", self.upload, upload=True),
            Page("GET", "/ui/jobs/estimate/{file}", self.estimate),
            Page("POST", "/ui/jobs/estimate/{file}", self.start),
            Page("GET", "/ui/jobs/{job}", self.detail),
            Page("GET", "/ui/jobs/{job}/progress", self.progress, polling=True),
            Page("GET", "/ui/jobs/{job}/cancel", self.ask_cancel),
            Page("POST", "/ui/jobs/{job}/cancel", self.cancel),
            Page("POST", "/ui/jobs/{job}/resume", self.resume),
            Page("GET", "/ui/jobs/{job}/files/{file}", self.download),
        )
