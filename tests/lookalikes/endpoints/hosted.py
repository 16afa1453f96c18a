"""One Inference Endpoint over time: its states, its URL and its bill.

From Hugging Face's documentation: the states, that a paused endpoint has no URL and one scaled to zero keeps it, that
initializing and running are billed by the minute for each replica, and that a call wakes an endpoint at zero. Guesses:
how long each state lasts, that the URL may change when an endpoint is resumed, and that updating is billed as running.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from lookalikes.endpoints.bodies import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PENDING_SECONDS = 2.0
INITIALIZING_SECONDS = 90.0
UPDATING_SECONDS = 60.0
BILLED = frozenset({"initializing", "running", "updating", "updateFailed"})
_EPOCH = datetime(2026, 8, 1, 12, tzinfo=UTC)


@dataclass
class Hosted:
    """An endpoint that follows the clock of `settle`."""

    body: dict[str, Any]
    now: float
    """Seconds since the look-alike's epoch."""
    price: float
    """Dollars for an hour of a replica."""
    url_of: Callable[[int], str]
    """The URL after so many resumes."""
    ends_in: str = "running"
    """The state after initializing: `failed` for a model that does not start, `initializing` for one that hangs."""
    state: str = "pending"
    since: float = 0.0
    last_call: float = 0.0
    resumes: int = 0
    calls: int = 0
    replicas: int = 1
    bill: list[tuple[float, float, int, float]] = field(default_factory=list)
    """Stretches of time: start, end, replicas, dollars."""
    created: float = 0.0
    updated: float = 0.0

    def __post_init__(self) -> None:
        self.since = self.created = self.updated = self.last_call = self.now
        self.replicas = self._at_least_one()

    @property
    def url(self) -> str | None:
        """Its URL, once it has one."""
        return self.url_of(self.resumes) if self.state not in {"pending", "paused", "failed"} else None

    @property
    def minutes(self) -> float:
        """Billed minutes of all replicas."""
        return sum((end - start) / 60 * replicas for start, end, replicas, _ in self.bill)

    @property
    def dollars(self) -> float:
        """The bill."""
        return sum(dollars for *_, dollars in self.bill)

    def settle(self, now: float) -> None:
        """Go through the states up to a moment."""
        while (due := self._next()) is not None and due[0] <= now:
            self._pass(due[0])
            self._enter(due[1])
        self._pass(now)

    def enter(self, state: str) -> None:
        """Enter a state at once, as an action of the API does."""
        self.updated = self.now
        self._enter(state)

    def resume(self) -> None:
        """Start again after a pause, perhaps with another URL."""
        self.resumes += 1
        self.last_call = self.now
        self.enter("pending")

    def change(self, body: dict[str, Any], price: float) -> None:
        """Change it: what runs is updated, everything else stays as it is."""
        self.body, self.price = body, price
        least, most = self._at_least_one(), max(body["compute"]["scaling"]["maxReplica"], 1)
        self.replicas = min(max(self.replicas, least), most)
        self.updated = self.now
        if self.state in {"running", "updateFailed"}:
            self._enter("updating")

    def call(self) -> None:
        """A request of a client: it wakes what is scaled to zero."""
        self.last_call = self.now
        if self.state == "scaledToZero":
            self._enter("initializing")
        if self.state in {"running", "updating"}:
            self.calls += 1

    def item(self) -> dict[str, Any]:
        """It, as the API returns it."""
        status: dict[str, Any] = {
            "state": self.state,
            "message": _MESSAGES.get(self.state, ""),
            "createdAt": _date(self.created),
            "updatedAt": _date(self.updated),
            "createdBy": {"id": "1", "name": "ada"},
            "updatedBy": {"id": "1", "name": "ada"},
            "private": None,
            "readyReplica": self.replicas if self.state in {"running", "updating"} else 0,
            "targetReplica": self.replicas if self.state in BILLED | {"pending"} else 0,
        }
        if self.url:
            status["url"] = self.url
        if self.state == "failed":
            status["errorMessage"] = "Scheduling failure: not enough hardware capacity"
        return {**redacted(self.body), "healthRoute": self._health_route(), "status": status}

    def _next(self) -> tuple[float, str] | None:
        after = {
            "pending": (PENDING_SECONDS, "initializing"),
            "initializing": (INITIALIZING_SECONDS, self.ends_in),
            "updating": (UPDATING_SECONDS, "running" if self.ends_in == "running" else "updateFailed"),
        }
        if self.state in after:
            seconds, state = after[self.state]
            return (self.since + seconds, state) if state != self.state else None
        scaling = self.body["compute"]["scaling"]
        minutes = scaling.get("scaleToZeroTimeout")
        if self.state == "running" and not scaling.get("minReplica") and minutes:
            return max(self.last_call, self.since) + minutes * 60, "scaledToZero"
        return None

    def _enter(self, state: str) -> None:
        self.state, self.since = state, self.now
        if state == "scaledToZero":
            self.replicas = self._at_least_one()

    def _pass(self, until: float) -> None:
        if self.state in BILLED and until > self.now:
            dollars = (until - self.now) / 3600 * self.replicas * self.price
            self.bill.append((self.now, until, self.replicas, dollars))
        self.now = max(until, self.now)

    def _at_least_one(self) -> int:
        least: int = self.body["compute"]["scaling"].get("minReplica", 0)
        return max(least, 1)

    def _health_route(self) -> str:
        image: Mapping[str, Any] = next(iter(self.body["model"]["image"].values()))
        return str(image.get("healthRoute", "/health"))


_MESSAGES = {
    "pending": "Endpoint is waiting to be scheduled",
    "initializing": "Endpoint is initializing",
    "running": "Endpoint is ready",
    "paused": "Endpoint paused",
    "scaledToZero": "Endpoint is scaled to zero",
}


def _date(seconds: float) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
