"""The state of one request: created by the guard, filled by a face, then written to the log and the metrics."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec

from hubgate.core.byte_budget import ByteBudget
from hubgate.domain.calls import Context, Origin
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import EndpointNotFound, NotPermitted
from hubgate.domain.records import ACTOR, Key
from hubgate.service.keys.credentials import Credentials
from hubgate.web.http.asgi import Headers
from hubgate.web.http.face import Face, RenderError
from hubgate.web.http.head import Head

BULK_PATIENCE = 600.0
"""Seconds until the deadline of a request with `X-Hubgate-Class: bulk`."""
SMALL_REPLY_BYTES = 64 * 1024
"""Smaller replies are not counted: the number of connections bounds them."""
SPARSE_REPLY_BYTES = 8 * 1024
"""Of one text, as its reply is estimated: a few hundred tokens with their weights, twice."""
_HEADER_SAFE = "/@:+,=~"
"""A server may report any text as the name of its model."""


class RequestContext(msgspec.Struct, eq=False):
    request_id: str
    started: float
    """Seconds on the monotonic clock."""
    face: Face
    client: str = "-"
    key: Key | None = None
    refused_key: str = "-"
    """For the log, if no key was accepted."""
    cached: bool = True
    """Whether cached vectors are accepted: not with `Cache-Control: no-cache` or `no-store`."""
    bulk: bool = False
    """Whether the request has `X-Hubgate-Class: bulk`, and so waits behind interactive ones."""
    head: Head | None = None
    """`None` for a request of the gateway itself."""
    other_render_error: RenderError | None = None
    """In place of the face's."""
    render_stream_error: RenderError | None = None
    """For an error within a stream, if that differs."""
    upload_bytes: int | None = None
    """The largest body, if the handler writes it to disk as it arrives. To be set before the body is read."""
    is_call: bool = False
    """Whether it calls a model, and so counts towards the key's limits and the usage."""
    texts: int = 0
    tokens: int = 0
    """Prompt and completion together."""
    completion_tokens: int = 0
    truncated: int = 0
    """Number of texts that were cut to the model's limit."""
    waited: float = 0.0
    """Seconds in hubgate's queue."""
    status: int = 0
    cause: str = "ok"
    client_left: bool = False
    endpoint: str = ""
    """The name of the called endpoint, never an alias."""
    origin: Origin = msgspec.field(default_factory=Origin)
    """Which endpoint and which model answer."""
    replies: ByteBudget | None = None
    """The memory of all replies."""
    reserved: int = 0
    """Bytes of it for this reply, until the guard gives them back."""

    def use(self, endpoint: Endpoint, name: str, model: str | None = None) -> None:
        """Record which endpoint is called, and by which name: its own or an alias.

        Args:
            endpoint: the endpoint.
            name: what the caller named.
            model: the endpoint's `model_version`, if it is at hand.

        Raises:
            EndpointNotFound: neither name is in the key's scope, as if it did not exist.
        """
        key, origin = self.key, self.origin
        if key is not None and key.endpoints and not self.may_use(endpoint, name):
            raise EndpointNotFound(name)
        self.endpoint = origin.endpoint = endpoint.name
        origin.model = model or endpoint.model_version

    async def reserve(self, size: int) -> None:
        """Wait for the memory of a reply whose size in bytes is known beforehand.

        Raises:
            GatewayBusy: there was none for too long.
        """
        if size <= SMALL_REPLY_BYTES or self.replies is None:
            return
        if self.reserved:  # to wait for more than it has could be for ever
            self.hold(size)
            return
        await self.replies.take(size, self._caller, bulk=self.is_bulk)
        self.reserved = min(size, self.replies.total)

    def hold(self, size: int) -> None:
        """Count a reply that is there already. Others wait until it is sent."""
        if size > SMALL_REPLY_BYTES and self.replies is not None:
            self.replies.add(size, self._caller)
            self.reserved += size

    def release_reply(self) -> None:
        if self.reserved and self.replies is not None:
            reserved, self.reserved = self.reserved, 0
            self.replies.give_back(reserved, self._caller)

    @property
    def _caller(self) -> str:
        return self.key.id if self.key else "-"

    @property
    def origin_headers(self) -> Headers:
        """`X-Hubgate-Endpoint` and `X-Hubgate-Model`."""
        return origin_headers(self.origin.endpoint, self.origin.model)

    @property
    def is_admin(self) -> bool:
        return self.key is not None and self.key.admin

    def may_call(self, name: str) -> bool:
        """Whether an endpoint or an alias is in the key's scope. Others must not be shown to the caller."""
        return self.key is None or self.key.may_call(name)

    def may_use(self, endpoint: Endpoint, name: str) -> bool:
        """Whether an endpoint may be called by a name: its own, or that of an alias.

        An alias in the scope is enough, wherever it leads. So is the endpoint itself.
        """
        return self.may_call(name) or self.may_call(endpoint.name)

    @property
    def is_bulk(self) -> bool:
        return self.bulk or (self.key is not None and self.key.bulk)

    def set_face(self, face: Face) -> None:
        self.face, self.other_render_error = face, None

    @property
    def render_error(self) -> RenderError:
        return self.other_render_error or self.face.render_error

    def record_refused_key(self, credentials: Credentials | None) -> None:
        if credentials is not None and credentials.claimed_id:
            self.refused_key = f"refused:{credentials.claimed_id}"

    def call_context(self, deadline: float | None = None) -> Context:
        """The context of a call to a model; `deadline` is in seconds on the monotonic clock."""
        key = self.key
        if self.bulk and deadline is None:
            deadline = self.started + BULK_PATIENCE
        return Context(
            request_id=self.request_id,
            caller=key.id if key else "-",
            bulk=self.bulk or (key is not None and key.bulk),
            deadline=deadline,
            origin=self.origin,
        )


OnFinished: TypeAlias = Callable[[RequestContext, float], None]
"""Called after each call to a model, with its seconds. It must be quick: the response is sent, the task is not over."""


@lru_cache(maxsize=1024)
def origin_headers(endpoint: str, model: str | None) -> Headers:
    headers = [(b"x-hubgate-endpoint", endpoint.encode())] if endpoint else []
    if model:
        headers.append((b"x-hubgate-model", quote(model, safe=_HEADER_SAFE).encode()))
    return headers


def context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    context: RequestContext = scope["hubgate.context"]
    return context


def key_of(scope: MutableMapping[str, Any]) -> Key:
    """The caller's key, on a route that requires one."""
    key = context_of(scope).key
    assert key is not None  # noqa: S101 - the guard or the console requires one
    return key


def need_admin(scope: MutableMapping[str, Any]) -> None:
    """Require an admin key. The audit log attributes later changes to it.

    Raises:
        NotPermitted: the key may only call models.
    """
    key = context_of(scope).key
    if key is None or not key.admin:
        raise NotPermitted("This key may only call models.", remedy="Use an admin key to change the gateway.")
    ACTOR.set(key.id)
