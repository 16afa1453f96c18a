"""The jobs page: batches of all keys, how far they are, and their files."""

from __future__ import annotations

from typing import Any

from starlette.responses import FileResponse, Response

from hubgate.domain.batches import Batch, Page
from hubgate.domain.errors import NotFound
from hubgate.service.batches.batches import Batches, can_resume
from hubgate.service.keys.access import Access
from hubgate.web.console.page_context import PageContext
from hubgate.web.http.request_context import key_of

_PER_PAGE = 50


class JobsPage:
    def __init__(self, batches: Batches, access: Access) -> None:
        self._batches = batches
        self._access = access

    async def show(self, context: PageContext) -> Response:
        """A page of jobs, newest first."""
        after = context.request.query_params.get("after")
        found = await self._batches.list(key_of(context.request.scope), Page(_PER_PAGE + 1, after))
        jobs = found[:_PER_PAGE]
        older = jobs[-1].id if len(found) > _PER_PAGE else None
        return self._render(context, "jobs/list.html", jobs=jobs, older=older, is_first=after is None)

    async def detail(self, context: PageContext) -> Response:
        return self._render(context, "jobs/detail.html", job=await self._find(context))

    async def progress(self, context: PageContext) -> Response:
        """The part of the job's page that changes."""
        return self._render(context, "jobs/progress.html", job=await self._find(context))

    async def ask_cancel(self, context: PageContext) -> Response:
        return self._render(context, "jobs/cancel.html", job=await self._find(context))

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

    async def _find(self, context: PageContext) -> Batch:
        return await self._batches.find(key_of(context.request.scope), context.request.path_params["job"])

    def _render(self, context: PageContext, template: str, **values: Any) -> Response:
        names = {key.id: key.name for key in self._access.list()}
        return context.render(template, names=names, can_resume=can_resume, **values)
