"""How the beginning of a request is written: its first line and its headers."""

from __future__ import annotations

import functools

from yarl import URL

from hubgate import __version__
from hubgate.domain.errors import InvalidEndpoint
from hubgate.upstreams.http.messages import HttpRequest
from hubgate.upstreams.http.proxy import Proxy


def head(request: HttpRequest, proxy: Proxy | None = None) -> bytes:
    """Request line and headers.

    Args:
        request: what to write.
        proxy: that reads it, if one does: it is told the whole URL, and shown that it may be asked.

    Raises:
        InvalidEndpoint: a header holds a line end.
    """
    headers = request.headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise InvalidEndpoint("A header of this endpoint holds a line end.", remedy="Copy the token again.")
    accept = "" if "Accept" in headers else "Accept: application/json\r\n"
    packing = "" if "Accept-Encoding" in headers else "Accept-Encoding: identity\r\n"
    length = f"Content-Length: {len(request.body)}\r\n" if request.body or request.method == "POST" else ""
    shown = proxy.authorization if proxy else ""
    return _first_lines(request.method, request.url, whole_url=proxy is not None) + (
        f"{lines}{accept}{packing}{shown}{length}\r\n".encode("latin-1")
    )


@functools.lru_cache(maxsize=1024)
def _first_lines(method: str, url: str, *, whole_url: bool) -> bytes:
    parsed = URL(url)
    host = parsed.host_port_subcomponent
    aim = f"{parsed.scheme}://{host}{parsed.raw_path_qs}" if whole_url else parsed.raw_path_qs
    return f"{method} {aim} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: hubgate/{__version__}\r\n".encode("ascii")
