"""Every error hubgate raises on purpose.

    HubgateError
    ├── CallerError               the request cannot be served as it is; asking again changes nothing
    │   ├── InvalidRequest        a field is missing, unknown, of the wrong type or out of range
    │   ├── InvalidEndpoint       an endpoint's settings cannot be used
    │   │   └── InvalidChunking   its chunking settings cannot (in `hubgate.domain.chunking`)
    │   ├── NotAuthenticated      no key, or one that is unknown or revoked
    │   │   └── TooManyWrongKeys  and too many wrong keys came before it
    │   ├── NotPermitted          a good key without this right
    │   ├── NotFound              nothing is served at this path
    │   ├── EndpointNotFound      no endpoint has this name
    │   ├── EndpointExists        the name is taken
    │   ├── WrongTask             the endpoint serves another task
    │   ├── EndpointDisabled      its operator has switched it off
    │   ├── InUse                 something else needs it, so it cannot be removed
    │   ├── BodyTooLarge          the request is larger than the gate accepts
    │   └── BodyTooSlow           its body did not arrive in time
    ├── CapacityError             the gate has no room now
    │   ├── GatewayBusy              for another connection, or for the bytes of a request body
    │   ├── QueueFull             too many callers wait already
    │   ├── KeyLimit              the caller's key has spent its minute
    │   └── DeadlineExceeded      the caller's time ran out
    │       └── DeadlineUnreachable            it would before a turn comes; told at once
    ├── UpstreamError             the model's server is the reason
    │   ├── UpstreamUnreachable   no connection: name, address, TLS, refused, timed out
    │   ├── UpstreamRefused       it answered with an error status
    │   ├── UpstreamUnreadable    it answered, and not with what it should
    │   └── EndpointChanged       it answers as another model than the registered one
    ├── RuntimeFailed             the local runtime cannot load or run a model
    └── StoreFailed               the database or the key file cannot be used
        └── DiskFull              its disk has no room

Each error carries a `cause` (one word from `Cause`, the same on every face, in logs and in metrics), a
`message` (what is wrong), a `remedy` (what to do), `retryable` and `retry_after` (seconds). None carries a secret.
Status codes belong to `hubgate.web.http.errors` alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Cause(StrEnum):
    """Why a call failed, in one word for machines; people read the message."""

    INVALID_REQUEST = "invalid_request"
    INVALID_ENDPOINT = "invalid_endpoint"
    NOT_AUTHENTICATED = "not_authenticated"
    NOT_PERMITTED = "not_permitted"
    NOT_FOUND = "not_found"
    ENDPOINT_NOT_FOUND = "endpoint_not_found"
    ENDPOINT_EXISTS = "endpoint_exists"
    WRONG_TASK = "wrong_task"
    BODY_TOO_LARGE = "body_too_large"
    DISABLED = "disabled"
    IN_USE = "in_use"
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
    """The root of the tree above."""

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
    """A field is missing, unknown, of the wrong type or out of range."""

    default_cause = Cause.INVALID_REQUEST


class InvalidEndpoint(CallerError):
    """An endpoint's settings cannot be used."""

    default_cause = Cause.INVALID_ENDPOINT


class NotAuthenticated(CallerError):
    """No key, or one that is unknown or revoked."""

    default_cause = Cause.NOT_AUTHENTICATED


class TooManyWrongKeys(NotAuthenticated):
    """The key is wrong, and too many wrong keys were tried before it."""

    def __init__(self, *, remedy: str, retry_after: float) -> None:
        super().__init__(
            "The key is unknown or was revoked, and too many wrong keys were tried in the last minute.",
            remedy=remedy,
            retry_after=retry_after,
        )


class NotPermitted(CallerError):
    """A good key without this right."""

    default_cause = Cause.NOT_PERMITTED


class NotFound(CallerError):
    """Nothing is served at this path."""

    default_cause = Cause.NOT_FOUND


class EndpointNotFound(CallerError):
    """No endpoint has this name; `remedy` says which one may be meant, or where the names are listed."""

    default_cause = Cause.ENDPOINT_NOT_FOUND

    def __init__(self, name: str, remedy: str = "") -> None:
        super().__init__(f"No endpoint is named [{name[:200]}].", remedy=remedy)
        self.name = name


class EndpointExists(CallerError):
    """The name is taken."""

    default_cause = Cause.ENDPOINT_EXISTS

    def __init__(self, name: str) -> None:
        super().__init__(
            f"An endpoint named [{name}] exists already.", remedy="Choose another name, or delete it first."
        )
        self.name = name


class WrongTask(CallerError):
    """The endpoint serves another task."""

    default_cause = Cause.WRONG_TASK

    def __init__(self, name: str, *, asked: str, actual: str, remedy: str | None = None) -> None:
        super().__init__(
            f"Endpoint [{name}] serves {actual}, not {asked}.",
            remedy=remedy or f"Use an endpoint of task {asked}; GET /v1/models lists them.",
        )
        self.name, self.asked, self.actual = name, asked, actual


class EndpointDisabled(CallerError):
    """The endpoint's operator has switched it off."""

    default_cause = Cause.DISABLED

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Endpoint [{name}] is switched off.",
            remedy="Its operator can switch it on again, or name another.",
        )
        self.name = name


class InUse(CallerError):
    """What is to be removed is needed by something else."""

    default_cause = Cause.IN_USE


class BodyTooLarge(CallerError):
    """The request is larger than the gate accepts."""

    default_cause = Cause.BODY_TOO_LARGE


class BodyTooSlow(CallerError):
    """The request's body did not arrive in time."""

    default_cause = Cause.DEADLINE_EXCEEDED


class CapacityError(HubgateError):
    """The gate has no room now."""

    default_retryable = True


class GatewayBusy(CapacityError):
    """The gate has no room for another connection, or for the bytes of a request body."""

    default_cause = Cause.GATE_BUSY


class QueueFull(CapacityError):
    """Too many callers wait already."""

    default_cause = Cause.QUEUE_FULL


class KeyLimit(CapacityError):
    """The caller's key has spent its minute."""

    default_cause = Cause.KEY_LIMIT


class DeadlineExceeded(CapacityError):
    """The caller's time ran out."""

    default_cause = Cause.DEADLINE_EXCEEDED


class DeadlineUnreachable(DeadlineExceeded):
    """It would before a turn comes; told at once, so there is time left to ask elsewhere."""


class UpstreamError(HubgateError):
    """The model's server is the reason."""

    default_cause = Cause.UPSTREAM_FAILED


class UpstreamUnreachable(UpstreamError):
    """No connection could be made, or it broke before an answer."""

    default_cause = Cause.CONNECTION_LOST
    default_retryable = True


class UpstreamRefused(UpstreamError):
    """The server answered with an error status.

    `status` is the server's; `said` is the server's own words, shortened and without markup; `signs` are the known
    words among them that tell how the server must be asked instead.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        said: str = "",
        signs: frozenset[str] = frozenset(),
        remedy: str = "",
        cause: Cause | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, cause=cause, retryable=retryable, retry_after=retry_after)
        self.status = status
        self.said = said
        self.signs = signs


class UpstreamUnreadable(UpstreamError):
    """The server answered, and not with what it should."""

    default_cause = Cause.UNREADABLE_REPLY


class EndpointChanged(UpstreamError):
    """The server answers as another model than the registered one."""

    default_cause = Cause.MODEL_CHANGED


class RuntimeFailed(HubgateError):
    """The local runtime cannot load or run a model."""

    default_cause = Cause.MODEL_UNUSABLE


class StoreFailed(HubgateError):
    """The database or the key file cannot be used."""

    default_cause = Cause.STORE_FAILED


class DiskFull(StoreFailed):
    """The disk of the database has no room."""
