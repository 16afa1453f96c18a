"""The state of one request: created by the guard, filled by a face, then written to the log and the metrics."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

from hubgate.domain.calls import Context
from hubgate.domain.errors import EndpointNotFound, NotPermitted
from hubgate.domain.records import ACTOR, Key
from hubgate.service.keys.credentials import claimed_id
from hubgate.web.http.face import Face, RenderError

BULK_PATIENCE = 600.0
"""Seconds until the deadline of a request with `X-Hubgate-Class: bulk`."""


@dataclass(slots=True)
class RequestContext:
    request_id: str
    started: float
    """Seconds on the monotonic clock."""
    client: str = "-"
    key: Key | None = None
    refused_key: str = "-"
    """For the log, if no key was accepted."""
    cached: bool = True
    """Whether cached vectors are accepted: not with `Cache-Control: no-cache` or `no-store`."""
    bulk: bool = False
    """Whether the request has `X-Hubgate-Class: bulk`, and so waits behind interactive ones."""
    wake: bool = False
    """Whether it has `X-Hubgate-Wake: true`: a bulk call that may wake its Inference Endpoint."""
    face: Face = field(init=False)
    render_error: RenderError = field(init=False)
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
    answered: bool = False
    """Whether the whole response was sent: a disconnect after that is not an abort."""
    _endpoint: str = field(default="", init=False)

    @property
    def endpoint(self) -> str:
        """The name of the called endpoint. Setting it checks the permission.

        Raises:
            EndpointNotFound: when set to an endpoint outside the key's scope, as if it did not exist.
        """
        return self._endpoint

    @endpoint.setter
    def endpoint(self, name: str) -> None:
        if not self.may_call(name):
            raise EndpointNotFound(name)
        self._endpoint = name

    @property
    def is_admin(self) -> bool:
        return self.key is not None and self.key.admin

    def may_call(self, endpoint: str) -> bool:
        """Whether an endpoint is in the key's scope. Others must not be shown to the caller."""
        return self.key is None or self.key.may_call(endpoint)

    @property
    def is_bulk(self) -> bool:
        return self.bulk or (self.key is not None and self.key.bulk)

    def set_face(self, face: Face, render_error: RenderError | None = None) -> None:
        self.face = face
        self.render_error = render_error or face.render_error

    def record_refused_key(self, authorization: str | None) -> None:
        if key_id := claimed_id(authorization):
            self.refused_key = f"refused:{key_id}"

    def call_context(self, deadline: float | None = None) -> Context:
        """The context of a call to a model; `deadline` is in seconds on the monotonic clock."""
        key = self.key
        if self.bulk and deadline is None:
            deadline = self.started + BULK_PATIENCE
        return Context(
            request_id=self.request_id,
            caller=key.id if key else "-",
            bulk=self.is_bulk,
            wake=self.wake,
            deadline=deadline,
        )


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
