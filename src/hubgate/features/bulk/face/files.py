"""OpenAI's files: `/v1/files`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from hubgate.domain.errors import InvalidRequest
from hubgate.features.bulk.batches.files import Files
from hubgate.features.bulk.batches.model import StoredFile
from hubgate.features.bulk.batches.room import MAX_FILES
from hubgate.features.bulk.face.lists import json_response, page_of, rendered_page
from hubgate.features.bulk.face.uploads import FORM_BYTES, UploadForm
from hubgate.service.keys.shared_limits import SharedKeyLimits
from hubgate.web.http.request_context import context_of, key_of

_MAX_LISTED = MAX_FILES


class FilesApi:
    def __init__(self, files: Files, limits: SharedKeyLimits) -> None:
        self._files = files
        self._limits = limits

    async def create(self, request: Request) -> Response:
        key, context = key_of(request.scope), context_of(request.scope)
        if key.is_limited:
            await self._limits.admit(key, context.started)
        context.upload_bytes = self._files.max_bytes + FORM_BYTES
        upload = await self._files.upload(key)
        try:
            form = UploadForm(upload)
            await form.read(request.receive, request.headers.get("content-type", ""))
            file = await self._files.add(
                upload,
                key,
                name=form.filename or "",
                purpose=form.fields.get("purpose"),
                seconds=_expiry(form.fields),
            )
        finally:
            await upload.discard()
        return json_response(file_object(file))

    async def list(self, request: Request) -> Response:
        page = page_of(request, default=_MAX_LISTED, maximum=_MAX_LISTED)
        purpose = request.query_params.get("purpose")
        found = await self._files.list(key_of(request.scope), page.one_more(), purpose)
        return rendered_page([file_object(file) for file in found], page)

    async def retrieve(self, request: Request) -> Response:
        return json_response(
            file_object(await self._files.find(key_of(request.scope), request.path_params["file"]))
        )

    async def content(self, request: Request) -> Response:
        file, path = await self._files.content(key_of(request.scope), request.path_params["file"])
        return FileResponse(path, media_type="application/octet-stream", filename=file.name)

    async def delete(self, request: Request) -> Response:
        file_id = request.path_params["file"]
        await self._files.delete(key_of(request.scope), file_id)
        return json_response({"id": file_id, "object": "file", "deleted": True})

    def routes(self) -> Sequence[Route]:
        return [
            route
            for prefix in ("/v1/files", "/files")
            for route in (
                Route(prefix, self.create, methods=["POST"]),
                Route(prefix, self.list, methods=["GET"]),
                Route(f"{prefix}/{{file}}", self.retrieve, methods=["GET"]),
                Route(f"{prefix}/{{file}}", self.delete, methods=["DELETE"]),
                Route(f"{prefix}/{{file}}/content", self.content, methods=["GET"]),
            )
        ]


def file_object(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created_at),
        "expires_at": int(file.expires_at),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _expiry(fields: dict[str, str]) -> float | None:
    """The seconds of `expires_after[seconds]`. Raises: InvalidRequest."""
    seconds, anchor = fields.get("expires_after[seconds]"), fields.get("expires_after[anchor]", "created_at")
    if anchor != "created_at" or (seconds is not None and not (seconds.isdecimal() and len(seconds) < 12)):
        raise InvalidRequest(
            "[expires_after] is not valid.", remedy='Use the anchor "created_at" and whole seconds.'
        )
    return None if seconds is None else float(seconds)
