"""Which Inference Endpoints a bulk job wakes: those of its endpoint that are scaled to zero."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from hubgate.domain.errors import Cause, HubgateError
from hubgate.terminal.client import CommandFailed, api

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.store.lock import RunningGateway

_FAILS_THE_JOB = frozenset({Cause.ENDPOINT_NOT_FOUND, Cause.INVALID_REQUEST})


class Sleeping(msgspec.Struct, frozen=True):
    """An Inference Endpoint that is scaled to zero. Prices are in US dollars an hour; `None` if unknown."""

    deployment: str
    """NAMESPACE/NAME."""
    price_per_hour: float | None
    """Of one replica."""
    dollars_at_most: float | None
    """Of all replicas."""

    @property
    def words(self) -> str:
        if self.price_per_hour is None:
            return f"{self.deployment}, at an unknown price"
        words = f"{self.deployment}, ${self.price_per_hour:g} an hour"
        if self.dollars_at_most in {None, self.price_per_hour}:
            return words
        return f"{words}, at most ${self.dollars_at_most:g} with all replicas"


def sleeping(endpoint: str, gateway: RunningGateway | None = None) -> Sequence[Sleeping]:
    """The Inference Endpoints that a job with this endpoint wakes.

    Raises:
        CommandFailed: the endpoint does not exist, or Hugging Face cannot be asked.
    """
    reply = api("GET", f"/api/deployments?{urlencode({'endpoint': endpoint})}", gateway=gateway)
    return [
        Sleeping(f"{one['namespace']}/{one['name']}", one.get("price_per_hour"), one.get("dollars_at_most"))
        for one in reply["deployments"]
        if one["state"] == "scaledToZero"
    ]


def announce(endpoint: str, gateway: RunningGateway | None = None) -> None:
    """Say what a job will wake. The job also runs if that is unknown."""
    try:
        for one in sleeping(endpoint, gateway):
            print(f"hubgate: The job will wake {one.words}.", file=sys.stderr)
    except (CommandFailed, HubgateError) as error:
        if error.cause not in _FAILS_THE_JOB:
            print(
                f"hubgate: Whether the job wakes an Inference Endpoint is unknown. {error}", file=sys.stderr
            )
