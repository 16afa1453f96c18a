"""What the head of a request says: whose it is, which face answers, and how it is to be served."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from hubgate.domain.records import Key
from hubgate.service.keys.credentials import Credentials, read_credentials
from hubgate.web.http.asgi import Scope
from hubgate.web.http.face import Face, is_hugging_face_client

HEAD = "hubgate.head"
"""In the scope: a `Head` that the server may give to later requests that have the same head, but for `Content-Length`."""
HIDDEN_PATH = "/k/"
"""Replaces a path with a key, where keys in paths are not accepted."""
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
XINFERENCE_AUTH = "/v1/cluster/auth"
"""Where Xinference's clients ask whether a key is required."""

# Headers that a handler of an inference route, or a proxy's, may read. The value of any other may be a secret.
_PUBLIC = frozenset(
    {b"accept", b"connection", b"content-type", b"user-agent", b"x-forwarded-for", b"x-forwarded-proto"}
)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:\-]{1,128}")
_NOT_CACHED = re.compile(rb"no-(cache|store)", re.IGNORECASE)
_KEYED_PATH = re.compile(r"/+k/+(?P<key>[^/]*)(?P<rest>/.*)?", re.DOTALL)
# What looks like a gateway key or an access token. No endpoint name matches it.
_KEY_LIKE = re.compile(r"hg_[0-9a-f]{8}_[A-Za-z0-9_\-]{40,}|hf_[A-Za-z0-9]{30,}")


class Head(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    path: str
    """Without keys."""
    face: Face
    credentials: Credentials | None
    is_open: bool
    """Whether no key is required."""
    fault: str
    """Why the request cannot be served, or empty."""
    request_id: str
    """The client's, or empty."""
    length: int
    """`Content-Length`; 0 if there is none."""
    cached: bool
    bulk: bool
    public_headers: list[tuple[bytes, bytes]]
    """All headers, but only those values that inference routes may read. Nothing here is secret."""
    is_shareable: bool
    """Whether neither the path nor the query has a secret."""

    def share(self, scope: Scope, key: Key | None) -> None:
        """Let only public headers be read from now on, and offer the head to the server if its key was accepted."""
        scope["headers"] = self.public_headers
        if self.is_shareable and key is not None:
            scope[HEAD] = self

    def of_any_length(self) -> Head:
        """The same for a request whose body has arrived, so that its announced length does not matter."""
        return msgspec.structs.replace(self, length=0)


def read_head(scope: Scope, face_of: Callable[[str, bool], Face], *, keys_in_path: bool) -> Head:
    """Read the head of a request. A key in the path of the scope is removed from it."""
    given: list[tuple[bytes, bytes]] = scope["headers"]
    headers = dict(given)
    sent_path = scope["path"]
    path = _take_key_from_path(scope, headers, keys_in_path=keys_in_path)
    request_id, length = headers.get(b"x-request-id", b""), headers.get(b"content-length", b"")
    authorization = headers.get(b"authorization")
    return Head(
        path=path,
        face=face_of(path, is_hugging_face_client(headers)),
        credentials=read_credentials(None if authorization is None else authorization.decode("latin-1")),
        is_open=_is_open(scope, headers),
        fault=_host_fault(scope, headers),
        request_id=request_id.decode() if request_id and _REQUEST_ID.fullmatch(request_id) else "",
        length=int(length) if length.isdigit() else 0,
        cached=b"cache-control" not in headers or not _NOT_CACHED.search(headers[b"cache-control"]),
        bulk=headers.get(b"x-hubgate-class", b"").strip().lower() == b"bulk",
        public_headers=[(name, value if name in _PUBLIC else b"") for name, value in given],
        is_shareable=path == sent_path and not scope["query_string"],
    )


def _take_key_from_path(scope: Scope, headers: dict[bytes, bytes], *, keys_in_path: bool) -> str:
    """Accept `/k/{key}/…`, for clients that cannot send a key in a header.

    The key, and anything else that looks like one, is removed from the path, so that no log or error shows it.
    """
    path: str = scope["path"]
    while "/k/" in path and (keyed := _KEYED_PATH.fullmatch(path)):
        if not keys_in_path:
            path = HIDDEN_PATH
            break
        headers[b"authorization"] = b"Bearer " + keyed["key"].encode()
        path = keyed["rest"] or "/"
    if "hg_" in path or "hf_" in path:
        path = _KEY_LIKE.sub("***", path)
    if path != scope["path"]:
        scope["path"] = path
        scope["raw_path"] = path.encode()
    return path


def _is_open(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    """Whether no key is required: for health checks, the start page, and the console, which has sessions.

    Xinference's clients send their key only after a reply that says that one is required.
    """
    path: str = scope["path"]
    if path in OPEN_PATHS or path in (XINFERENCE_AUTH, "/ui") or path.startswith("/ui/"):
        return True
    return path == "/" and scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b"")


def _host_fault(scope: Scope, headers: Mapping[bytes, bytes]) -> str:
    """What is wrong with `Host`: exactly one is required (RFC 9112, section 3.2); HTTP/1.0 may have none."""
    if b"host" in headers:
        repeated = len(headers) < len(scope["headers"])
        if repeated and [name for name, _ in scope["headers"]].count(b"host") > 1:
            return "The request has more than one Host header."
    elif scope.get("http_version") == "1.1":
        return "The request has no Host header."
    return ""
