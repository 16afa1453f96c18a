"""What is known of one request: made by the guard, filled by a face, written to the log and the meter at its end."""

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
"""Seconds that a request has which asks to wait behind others: it gives way for so long, and no longer."""


@dataclass(slots=True)
class RequestContext:
    """One request's context, at `scope["hubgate.context"]`."""

    request_id: str
    started: float
    """On the monotonic clock, in seconds."""
    client: str = "-"
    """The client's address."""
    key: Key | None = None
    refused_key: str = "-"
    """For the log, where no key was accepted."""
    cached: bool = True
    """Whether remembered vectors will do: not with `Cache-Control: no-cache` or `no-store`, on any face."""
    bulk: bool = False
    """Whether the request itself asks to wait behind others: `X-Hubgate-Class: bulk`, on any face."""
    face: Face = field(init=False)
    render_error: RenderError = field(init=False)
    """The face's own, unless `set_face` was given another one."""
    render_stream_error: RenderError | None = None
    """For an error in the middle of a stream, where that is another one again."""
    is_call: bool = False
    """Whether it asks a model, so that it counts against the key's limits and in the use of endpoints."""
    texts: int = 0
    tokens: int = 0
    """Of the prompt and of what was written together."""
    completion_tokens: int = 0
    truncated: int = 0
    """Texts of which the model read only the beginning."""
    waited: float = 0.0
    """Seconds in the gate's queue."""
    status: int = 0
    cause: str = "ok"
    client_left: bool = False
    answered: bool = False
    """Whether the answer is whole: who goes then has not left."""
    _endpoint: str = field(default="", init=False)

    @property
    def endpoint(self) -> str:
        """The name of the registered endpoint that was called. Whoever names it asks for it.

        Raises:
            EndpointNotFound: when it is set to one out of the key's scope, which is answered as if it did not exist.
        """
        return self._endpoint

    @endpoint.setter
    def endpoint(self, name: str) -> None:
        if not self.may_call(name):
            raise EndpointNotFound(name)
        self._endpoint = name

    @property
    def is_admin(self) -> bool:
        """Whether an admin asks, who may know where models run."""
        return self.key is not None and self.key.admin

    def may_call(self, endpoint: str) -> bool:
        """Whether an endpoint is in the key's scope: others are not shown to it either."""
        return self.key is None or self.key.may_call(endpoint)

    @property
    def is_bulk(self) -> bool:
        """Whether it waits behind interactive requests: it asks to, or its key is for bulk work."""
        return self.bulk or (self.key is not None and self.key.bulk)

    def set_face(self, face: Face, render_error: RenderError | None = None) -> None:
        """Set the face of this request, and how its errors are rendered where that differs from the face."""
        self.face = face
        self.render_error = render_error or face.render_error

    def record_refused_key(self, authorization: str | None) -> None:
        """Note for the log which key was refused."""
        if key_id := claimed_id(authorization):
            self.refused_key = f"refused:{key_id}"

    def call_context(self, deadline: float | None = None) -> Context:
        """Who asks, for the floors below; `deadline` is on the monotonic clock."""
        key = self.key
        if self.bulk and deadline is None:
            deadline = self.started + BULK_PATIENCE
        return Context(
            request_id=self.request_id,
            caller=key.id if key else "-",
            bulk=self.is_bulk,
            deadline=deadline,
        )


def context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    """The context of a request."""
    context: RequestContext = scope["hubgate.context"]
    return context


def need_admin(scope: MutableMapping[str, Any]) -> None:
    """Let only an admin key pass; what is changed from here on is its doing.

    Raises:
        NotPermitted: the key may only infer.
    """
    key = context_of(scope).key
    if key is None or not key.admin:
        raise NotPermitted("This key may only call models.", remedy="Use an admin key to change the gateway.")
    ACTOR.set(key.id)
