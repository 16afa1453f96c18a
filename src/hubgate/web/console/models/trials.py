"""Tests of models that run while their page watches: each step is remembered until the page has asked for it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from hubgate.domain.diagnosis import Finding, Outcome, Step, step_of
from hubgate.domain.endpoint import Facts
from hubgate.domain.errors import HubgateError

MOST = 50
"""Trials that are remembered; the oldest go."""


@dataclass(slots=True, eq=False)
class Trial:
    """One run of a diagnosis."""

    id: str
    findings: list[Finding] = field(default_factory=list)
    over: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def passed(self) -> bool:
        """Whether it went all the way."""
        return self.over and all(found.outcome is not Outcome.FAILED for found in self.findings)

    @property
    def fault(self) -> Finding | None:
        """The step that failed."""
        return next((found for found in self.findings if found.outcome is Outcome.FAILED), None)

    @property
    def facts(self) -> Facts | None:
        """What was learned of the model that answered."""
        return next((found.facts for found in self.findings if found.facts), None)

    @property
    def seconds(self) -> float:
        """How long it all took."""
        return sum(found.seconds for found in self.findings)

    @property
    def waiting(self) -> list[Step]:
        """The steps of which nothing is told yet."""
        told = {found.step for found in self.findings}
        return [step for step in Step if step not in told]


class Trials:
    """Those of one gate. A trial holds no token: only what was found."""

    def __init__(self) -> None:
        self._trials: dict[str, Trial] = {}

    def begin(self, findings: AsyncIterator[Finding]) -> Trial:
        """Start a diagnosis."""
        while len(self._trials) >= MOST:
            oldest = self._trials.pop(next(iter(self._trials)))
            if oldest.task:
                oldest.task.cancel()
        trial = self._trials[secrets.token_urlsafe(12)] = Trial("")
        trial.id = next(reversed(self._trials))
        trial.task = asyncio.create_task(_run(trial, findings))
        return trial

    def find(self, trial_id: str) -> Trial | None:
        """A trial; `None` if it is not remembered any more."""
        return self._trials.get(trial_id)


async def _run(trial: Trial, findings: AsyncIterator[Finding]) -> None:
    try:
        async for found in findings:
            trial.findings.append(found)
    except HubgateError as error:  # before the first step: settings that cannot be tried
        trial.findings.append(Finding.failed(error, step_of(error.cause) or Step.ADDRESS, 0.0))
    finally:
        trial.over = True
