"""What a diagnosis finds: the way to a model, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hubgate.domain.endpoint import Facts
from hubgate.domain.errors import Cause, HubgateError


class Step(StrEnum):
    """The steps, in their order; each needs the ones before it."""

    ADDRESS = "address"
    """The URL is one, and may be asked."""
    DNS = "dns"
    """Its name has an address."""
    TCP = "tcp"
    """Something listens there."""
    TLS = "tls"
    """Its certificate is good."""
    AUTHENTICATION = "authentication"
    """It knows the token."""
    SCOPE = "scope"
    """The token may do this, and somebody pays for it."""
    STATE = "state"
    """It runs: it is not paused, asleep, failed or overloaded."""
    MODEL = "model"
    """It is a server that is known, and its model does the task."""
    ANSWER = "answer"
    """The model answers one small question."""


class Outcome(StrEnum):
    """What became of a step."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not needed here, or not reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One step of a diagnosis; `seconds` is what it took, and the rest is told of the step that failed.

    A step that was passed has a `message` where not all went well: which of several tokens was refused.
    """

    step: Step
    outcome: Outcome
    seconds: float = 0.0
    cause: Cause | None = None
    message: str = ""
    remedy: str = ""
    facts: Facts | None = None
    """What was learned of the model, at the step where it answered."""

    @classmethod
    def failed(cls, error: HubgateError, step: Step, seconds: float) -> Finding:
        """The finding for an error."""
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
    Cause.DOWNLOAD_FAILED: Step.MODEL,
    Cause.RUNTIME_MISSING: Step.MODEL,
}


def step_of(cause: Cause) -> Step | None:
    """The step that a cause tells of, if it tells of one."""
    return _STEP_OF.get(cause)
