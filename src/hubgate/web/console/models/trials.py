"""Connection tests that run in the background while their page polls the results, at any gateway."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import msgspec

from hubgate.domain.diagnosis import Finding, Outcome, Step, step_of
from hubgate.domain.endpoint import Endpoint, Facts
from hubgate.domain.errors import HubgateError
from hubgate.service.shared_values import SharedValues

MAX_TRIALS = 50
"""Older ones are dropped."""
_SHARED_SECONDS = 600.0
"""For which other gateways see a trial after its last step."""


@dataclass(slots=True, eq=False)
class Trial:
    """A run of a diagnosis. It contains no token."""

    id: str
    endpoint: Endpoint | None = None
    """The settings that are tested."""
    findings: list[Finding] = field(default_factory=list)
    over: bool = False

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


_DECODER = msgspec.json.Decoder(Trial)


class Trials:
    """The trials of this gateway, and of others with the same database."""

    def __init__(self, shared: SharedValues) -> None:
        self._shared = shared
        self._trials: dict[str, tuple[Trial, asyncio.Task[None]]] = {}

    async def begin(self, findings: AsyncIterator[Finding], endpoint: Endpoint | None = None) -> Trial:
        while len(self._trials) >= MAX_TRIALS:
            _, oldest = self._trials.pop(next(iter(self._trials)))
            oldest.cancel()
        trial = Trial(secrets.token_urlsafe(12), endpoint)
        self._trials[trial.id] = trial, asyncio.create_task(self._run(trial, findings))
        await self._share(trial)
        return trial

    async def find(self, trial_id: str) -> Trial | None:
        if trial_id in self._trials:
            return self._trials[trial_id][0]
        stored = await self._shared.get(_name(trial_id))
        try:
            return _DECODER.decode(stored) if stored else None
        except msgspec.MsgspecError:  # a gateway of another version stored it
            return None

    async def _run(self, trial: Trial, findings: AsyncIterator[Finding]) -> None:
        try:
            async for found in findings:
                trial.findings.append(found)
                await self._share(trial)
        except HubgateError as error:  # before the first step: the settings are invalid
            trial.findings.append(Finding.failed(error, step_of(error.cause) or Step.ADDRESS, 0.0))
        finally:
            trial.over = True
        await self._share(trial)

    async def _share(self, trial: Trial) -> None:
        if self._shared.are_shared:
            await self._shared.put(_name(trial.id), msgspec.json.encode(trial).decode(), _SHARED_SECONDS)


def _name(trial_id: str) -> str:
    return f"trial {trial_id}"
