"""Stylesheets, scripts and images, each at a URL that changes with its content."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from hubgate.domain.errors import NotFound

FOLDER = Path(__file__).parent / "static"
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class _File(NamedTuple):
    content: bytes
    gzipped: bytes
    media_type: str
    digest: str


def static_url(name: str) -> str:
    """The URL of a file, which browsers may cache forever."""
    return f"/ui/static/{name}?{_files()[name].digest}"


async def serve_file(request: Request) -> Response:
    file = _files().get(request.path_params["file"])
    if file is None:
        raise NotFound("The console has no such file.")
    caching = "public, max-age=31536000, immutable" if request.url.query == file.digest else "no-cache"
    headers = {"cache-control": caching, "vary": "Accept-Encoding", "x-content-type-options": "nosniff"}
    content = file.content
    if "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["content-encoding"] = file.gzipped, "gzip"
    return Response(content, media_type=file.media_type, headers=headers)


@cache
def _files() -> dict[str, _File]:
    found = (path for path in sorted(FOLDER.iterdir()) if path.suffix in _TYPES)
    return {
        path.name: _File(
            content,
            gzip.compress(content, 9, mtime=0),
            _TYPES[path.suffix],
            hashlib.sha256(content).hexdigest()[:12],
        )
        for path in found
        for content in [path.read_bytes()]
    }
