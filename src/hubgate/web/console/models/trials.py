"""Connection tests that run in the background while their page polls the results."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from hubgate.domain.diagnosis import Finding, Outcome, Step, step_of
from hubgate.domain.endpoint import Endpoint, Facts
from hubgate.domain.errors import HubgateError

MAX_TRIALS = 50
"""Older ones are dropped."""


@dataclass(slots=True, eq=False)
class Trial:
    """A run of a diagnosis."""

    id: str
    endpoint: Endpoint | None = None
    """The settings that are tested."""
    findings: list[Finding] = field(default_factory=list)
    over: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def passed(self) -> bool:
        return self.over and all(found.outcome is not Outcome.FAILED for found in self.findings)

    @property
    def fault(self) -> Finding | None:
        return next((found for found in self.findings if found.outcome is Outcome.FAILED), None)

    @property
    def facts(self) -> Facts | None:
        return next((found.facts for found in self.findings if found.facts), None)

    @property
    def tested(self) -> Endpoint | None:
        """The endpoint with what was learned."""
        return replace(self.endpoint, facts=self.facts) if self.endpoint and self.facts else None

    @property
    def seconds(self) -> float:
        return sum(found.seconds for found in self.findings)

    @property
    def waiting(self) -> list[Step]:
        """The steps that have no result yet."""
        replica = self.findings[-1].replica if self.findings else ""
        done = {found.step for found in self.findings if found.replica == replica}
        return [step for step in Step if step not in done]


class Trials:
    """The trials of a gateway. They contain no tokens."""

    def __init__(self) -> None:
        self._trials: dict[str, Trial] = {}

    def begin(self, findings: AsyncIterator[Finding], endpoint: Endpoint | None = None) -> Trial:
        while len(self._trials) >= MAX_TRIALS:
            oldest = self._trials.pop(next(iter(self._trials)))
            if oldest.task:
                oldest.task.cancel()
        trial = self._trials[secrets.token_urlsafe(12)] = Trial("", endpoint)
        trial.id = next(reversed(self._trials))
        trial.task = asyncio.create_task(_run(trial, findings))
        return trial

    def find(self, trial_id: str) -> Trial | None:
        return self._trials.get(trial_id)


async def _run(trial: Trial, findings: AsyncIterator[Finding]) -> None:
    try:
        async for found in findings:
            trial.findings.append(found)
    except HubgateError as error:  # before the first step: the settings are invalid
        trial.findings.append(Finding.failed(error, step_of(error.cause) or Step.ADDRESS, 0.0))
    finally:
        trial.over = True
