"""The errors that hubgate raises.

    HubgateError
    ├── CallerError               the request cannot be served as it is; retrying does not help
    │   ├── InvalidRequest        a field is missing, unknown, of the wrong type or out of range
    │   ├── InvalidEndpoint       an endpoint's settings are invalid
    │   │   └── InvalidChunking   its chunking settings are (in `hubgate.domain.chunking`)
    │   ├── NotAuthenticated      the key is missing, unknown, revoked or expired
    │   │   ├── UnknownKey        no key is like it
    │   │   └── TooManyWrongKeys  and too many wrong keys were tried before
    │   ├── NotPermitted          the key lacks this permission
    │   ├── NotFound              nothing is served at this path
    │   ├── EndpointNotFound      no endpoint has this name
    │   ├── EndpointExists        the name is taken
    │   │   └── AliasExists       by an alias
    │   ├── IsAlias               the name is an alias, but an endpoint is needed
    │   ├── NewVectors            the alias would lead to vectors that cannot be compared with those before
    │   ├── EndpointConflict      another gateway changed it at the same time
    │   ├── WrongTask             the endpoint serves another task
    │   ├── EndpointDisabled      the endpoint is disabled
    │   ├── InUse                 something else needs it, so it cannot be removed
    │   │   └── BehindAlias       an alias leads to the endpoint
    │   ├── NotConfirmed          it would cost money, and nobody confirmed the price
    │   ├── BodyTooLarge          the request body is too large
    │   ├── FilesFull             the files of the key take its whole share
    │   └── BodyTooSlow           the request body did not arrive in time
    ├── CapacityError             the gateway is out of capacity
    │   ├── GatewayBusy           no capacity for another connection or request body
    │   ├── QueueFull             too many calls are waiting
    │   ├── FolderFull            the folder for files is full
    │   ├── KeyLimit              the caller's key reached its rate limit
    │   └── DeadlineExceeded      the caller's deadline passed
    │       └── DeadlineUnreachable   it would pass before the call's turn; raised at once
    ├── UpstreamError             the model's server failed
    │   ├── UpstreamUnreachable   no connection: DNS, address, TLS, refused, timed out
    │   ├── UpstreamRefused       it returned an error status
    │   ├── UpstreamUnreadable    its reply is not what the protocol requires
    │   ├── OutcomeUnknown        it may have carried out the request, or not
    │   └── EndpointChanged       it now runs another model than the registered one
    ├── RuntimeFailed             the local runtime cannot load or run a model
    └── StoreFailed               the database or the key file cannot be used
        └── DiskFull              its disk is full

Each error has a `cause` (one word from `Cause`, the same on every face, in logs and in metrics), a `message` (what is
wrong), a `remedy` (what to do), `retryable` and `retry_after` (seconds). None contains a secret. Only
`hubgate.web.http.errors` maps them to status codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar


class Cause(StrEnum):
    """Why a call failed, for programs."""

    INVALID_REQUEST = "invalid_request"
    INVALID_ENDPOINT = "invalid_endpoint"
    NOT_AUTHENTICATED = "not_authenticated"
    NOT_PERMITTED = "not_permitted"
    NOT_FOUND = "not_found"
    ENDPOINT_NOT_FOUND = "endpoint_not_found"
    ENDPOINT_EXISTS = "endpoint_exists"
    CONFLICT = "conflict"
    WRONG_TASK = "wrong_task"
    BODY_TOO_LARGE = "body_too_large"
    FILES_FULL = "files_full"
    DISABLED = "disabled"
    IN_USE = "in_use"
    NOT_CONFIRMED = "not_confirmed"
    NEW_VECTORS = "new_vectors"
    PRICE_CHANGED = "price_changed"
    OVER_BUDGET = "over_budget"
    KEY_LIMIT = "key_limit"
    QUEUE_FULL = "queue_full"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    ADDRESS_REFUSED = "address_refused"
    NAME_NOT_RESOLVED = "name_not_resolved"
    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_LOST = "connection_lost"
    TLS_FAILED = "tls_failed"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_REDIRECTS = "upstream_redirects"
    TOKEN_MISSING = "token_missing"  # noqa: S105 - a cause, not a secret
    TOKEN_NEEDED = "token_needed"  # noqa: S105
    WRONG_TOKEN = "wrong_token"  # noqa: S105
    TOKEN_LACKS_SCOPE = "token_lacks_scope"  # noqa: S105
    OUT_OF_CREDIT = "out_of_credit"
    MODEL_NOT_FOUND = "model_not_found"
    GATED_MODEL = "gated_model"
    NOT_SERVED = "not_served"
    PAUSED = "paused"
    WAKING = "waking"
    OVERLOADED = "overloaded"
    INPUT_TOO_LONG = "input_too_long"
    INPUT_REFUSED = "input_refused"
    OLD_ADDRESS = "old_address"
    UPSTREAM_FAILED = "upstream_failed"
    NOT_AN_API = "not_an_api"
    UNREADABLE_REPLY = "unreadable_reply"
    TOKEN_LEVEL_REPLY = "token_level_reply"  # noqa: S105
    WRONG_COUNT = "wrong_count"
    NOT_A_NUMBER = "not_a_number"
    RANKS_AT_RANDOM = "ranks_at_random"
    DIMENSIONS_CHANGED = "dimensions_changed"
    MODEL_CHANGED = "model_changed"
    MODEL_UNUSABLE = "model_unusable"
    DOWNLOAD_FAILED = "download_failed"
    RUNTIME_CRASHED = "runtime_crashed"
    RUNTIME_MISSING = "runtime_missing"
    STORE_FAILED = "store_failed"
    GATE_BUSY = "gate_busy"
    GATE_STOPPING = "gate_stopping"
    INTERNAL = "internal"


class HubgateError(Exception):
    default_cause: ClassVar[Cause] = Cause.INTERNAL
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        cause: Cause | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.cause = cause or self.default_cause
        self.retryable = self.default_retryable if retryable is None else retryable
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


class CallerError(HubgateError):
    """The request cannot be served as it is."""


class InvalidRequest(CallerError):
    default_cause = Cause.INVALID_REQUEST


class InvalidEndpoint(CallerError):
    default_cause = Cause.INVALID_ENDPOINT


class NotAuthenticated(CallerError):
    default_cause = Cause.NOT_AUTHENTICATED


class UnknownKey(NotAuthenticated):
    """The key is wrong, or was revoked."""


class TooManyWrongKeys(NotAuthenticated):
    def __init__(self, *, remedy: str, retry_after: float) -> None:
        super().__init__(
            "The key is unknown or was revoked, and too many wrong keys were tried in the last minute.",
            remedy=remedy,
            retry_after=retry_after,
        )


class NotPermitted(CallerError):
    default_cause = Cause.NOT_PERMITTED


class NotFound(CallerError):
    default_cause = Cause.NOT_FOUND


class EndpointNotFound(CallerError):
    default_cause = Cause.ENDPOINT_NOT_FOUND

    def __init__(self, name: str, remedy: str = "") -> None:
        super().__init__(f"No endpoint is named [{name[:200]}].", remedy=remedy)
        self.name = name


class EndpointExists(CallerError):
    default_cause = Cause.ENDPOINT_EXISTS

    def __init__(self, name: str) -> None:
        super().__init__(
            f"An endpoint named [{name}] already exists.", remedy="Choose another name, or delete it first."
        )
        self.name = name


class AliasExists(EndpointExists):
    def __init__(self, name: str, endpoint: str) -> None:
        super().__init__(name)
        self.message = f"[{name}] is an alias of endpoint [{endpoint}]."
        self.remedy = "Choose another name, or remove the alias first."


class IsAlias(CallerError):
    default_cause = Cause.INVALID_REQUEST

    def __init__(self, name: str, endpoint: str) -> None:
        super().__init__(
            f"[{name}] is an alias of endpoint [{endpoint}].", remedy="Use the name of the endpoint."
        )


class NewVectors(CallerError):
    default_cause = Cause.NEW_VECTORS


class EndpointConflict(CallerError):
    default_cause = Cause.CONFLICT
    default_retryable = True

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Endpoint [{name}] is being changed at another gateway.",
            remedy="Nothing was changed. Try again.",
        )
        self.name = name


class WrongTask(CallerError):
    default_cause = Cause.WRONG_TASK

    def __init__(self, name: str, *, requested: str, actual: str, remedy: str | None = None) -> None:
        super().__init__(
            f"Endpoint [{name}] serves {actual}, not {requested}.",
            remedy=remedy or f"Use an endpoint with task {requested}; GET /v1/models lists them.",
        )
        self.name, self.requested, self.actual = name, requested, actual


class EndpointDisabled(CallerError):
    default_cause = Cause.DISABLED

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Endpoint [{name}] is disabled.",
            remedy="Ask its operator to enable it, or use another endpoint.",
        )
        self.name = name


class InUse(CallerError):
    default_cause = Cause.IN_USE


class BehindAlias(InUse):
    def __init__(self, endpoint: str, aliases: Sequence[str]) -> None:
        super().__init__(
            f"Endpoint [{endpoint}] is behind the alias{'es' if aliases[1:] else ''} {', '.join(aliases)}.",
            remedy="Move or remove the aliases first.",
        )


class NotConfirmed(CallerError):
    default_cause = Cause.NOT_CONFIRMED


class BodyTooLarge(CallerError):
    default_cause = Cause.BODY_TOO_LARGE


class FilesFull(CallerError):
    """The files of the key take its whole share."""

    default_cause = Cause.FILES_FULL


class BodyTooSlow(CallerError):
    default_cause = Cause.DEADLINE_EXCEEDED


class CapacityError(HubgateError):
    default_retryable = True


class GatewayBusy(CapacityError):
    default_cause = Cause.GATE_BUSY


class QueueFull(CapacityError):
    default_cause = Cause.QUEUE_FULL


class FolderFull(CapacityError):
    """The folder for files is full. Waiting does not help."""

    default_cause = Cause.FILES_FULL
    default_retryable = False


class KeyLimit(CapacityError):
    default_cause = Cause.KEY_LIMIT


class DeadlineExceeded(CapacityError):
    default_cause = Cause.DEADLINE_EXCEEDED


class DeadlineUnreachable(DeadlineExceeded):
    """The deadline would pass before the call's turn comes. Raised at once, so the caller can still use a fallback."""


class UpstreamError(HubgateError):
    default_cause = Cause.UPSTREAM_FAILED


class UpstreamUnreachable(UpstreamError):
    default_cause = Cause.CONNECTION_LOST
    default_retryable = True


class UpstreamRefused(UpstreamError):
    """The server returned an error `status`.

    `server_message` is the server's own message, shortened and without markup. `markers` are the known phrases in it
    that show which other request format the server expects.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        server_message: str = "",
        markers: frozenset[str] = frozenset(),
        remedy: str = "",
        cause: Cause | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, cause=cause, retryable=retryable, retry_after=retry_after)
        self.status = status
        self.server_message = server_message
        self.markers = markers


class UpstreamUnreadable(UpstreamError):
    default_cause = Cause.UNREADABLE_REPLY


class OutcomeUnknown(UpstreamError):
    """The request may have been carried out, but there was no usable reply. It must not be sent again."""


class EndpointChanged(UpstreamError):
    default_cause = Cause.MODEL_CHANGED


class RuntimeFailed(HubgateError):
    default_cause = Cause.MODEL_UNUSABLE


class StoreFailed(HubgateError):
    default_cause = Cause.STORE_FAILED


class DiskFull(StoreFailed):
    """The disk of the database is full."""
