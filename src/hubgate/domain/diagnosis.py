"""The steps of a diagnosis, and their outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hubgate.domain.endpoint import Facts
from hubgate.domain.errors import Cause, HubgateError


class Step(StrEnum):
    """In order: each step depends on those before it."""

    ADDRESS = "address"
    """The URL is valid, and its host is allowed."""
    DNS = "dns"
    """The host name resolves."""
    TCP = "tcp"
    """The port accepts connections."""
    TLS = "tls"
    """The certificate is valid."""
    AUTHENTICATION = "authentication"
    """The server accepts the token."""
    SCOPE = "scope"
    """The token has the permission, and the account has credit."""
    STATE = "state"
    """The server is running: not paused, scaled to zero, failed or overloaded."""
    MODEL = "model"
    """The engine is known, and its model does the task."""
    ANSWER = "answer"
    """The model answers a small request."""


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not applicable, or not reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one step. `cause` and `remedy` are set if it failed.

    A step that passed has a `message` if there is a warning, such as one of several tokens being refused.
    """

    step: Step
    outcome: Outcome
    replica: str = ""
    """Which of several servers of the model; empty for the only one."""
    seconds: float = 0.0
    cause: Cause | None = None
    message: str = ""
    remedy: str = ""
    facts: Facts | None = None
    """What was learned about the model; set at the `ANSWER` step."""

    @classmethod
    def failed(cls, error: HubgateError, step: Step, seconds: float) -> Finding:
        return cls(
            step=step,
            outcome=Outcome.FAILED,
            seconds=seconds,
            cause=error.cause,
            message=error.message,
            remedy=error.remedy,
        )


_STEP_OF: dict[Cause, Step] = {
    Cause.INVALID_ENDPOINT: Step.ADDRESS,
    Cause.ADDRESS_REFUSED: Step.ADDRESS,
    Cause.OLD_ADDRESS: Step.ADDRESS,
    Cause.NAME_NOT_RESOLVED: Step.DNS,
    Cause.CONNECTION_REFUSED: Step.TCP,
    Cause.TLS_FAILED: Step.TLS,
    Cause.TOKEN_MISSING: Step.AUTHENTICATION,
    Cause.WRONG_TOKEN: Step.AUTHENTICATION,
    Cause.TOKEN_LACKS_SCOPE: Step.SCOPE,
    Cause.OUT_OF_CREDIT: Step.SCOPE,
    Cause.GATED_MODEL: Step.SCOPE,
    Cause.PAUSED: Step.STATE,
    Cause.WAKING: Step.STATE,
    Cause.OVERLOADED: Step.STATE,
    Cause.DISABLED: Step.STATE,
    Cause.NOT_AN_API: Step.MODEL,
    Cause.UPSTREAM_REDIRECTS: Step.MODEL,
    Cause.MODEL_NOT_FOUND: Step.MODEL,
    Cause.NOT_SERVED: Step.MODEL,
    Cause.WRONG_TASK: Step.MODEL,
    Cause.MODEL_UNUSABLE: Step.MODEL,
    Cause.RANKS_AT_RANDOM: Step.ANSWER,
    Cause.DOWNLOAD_FAILED: Step.MODEL,
    Cause.RUNTIME_MISSING: Step.MODEL,
}


def step_of(cause: Cause) -> Step | None:
    """The step at which this cause occurs, if it is specific to one."""
    return _STEP_OF.get(cause)
