"""What is wrong with an endpoint, in plain words: each step of the way to its model, with its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

from hubgate.domain.diagnosis import Finding, Outcome, Step, step_of
from hubgate.domain.endpoint import Facts, Target, Task
from hubgate.domain.errors import DeadlineExceeded, HubgateError
from hubgate.domain.ports import Clock, Sources
from hubgate.service.registry.probe import probe
from hubgate.service.registry.validation import DEFAULT_SECONDS

_NOT_EVERYWHERE = frozenset({Step.ADDRESS, Step.DNS, Step.TCP, Step.TLS})
"""Steps that a model on this machine, or a server without TLS, has not: nobody told of them."""
_ONLY_CHATS = "This server only chats, and will refuse to complete a text: choose the task chat_completion (conversational)."


async def diagnose(
    sources: Sources,
    target: Target,
    *,
    within: float = DEFAULT_SECONDS,
    clock: Clock = time.monotonic,
) -> AsyncIterator[Finding]:
    """Go the way to a model, and tell of each step once; after the one that fails the others are skipped.

    Args:
        sources: where models are.
        target: the model, registered or not.
        within: seconds for all that the model is asked.
        clock: seconds that never go back.
    """
    left, began = list(Step), clock()
    fault, reached = None, None
    notes: Mapping[Step, str] = {}
    facts: Facts | None = None
    took = 0.0
    try:
        async for step in sources.reach(target.endpoint):
            while left[0] is not step:
                yield Finding(step=left.pop(0), outcome=Outcome.SKIPPED)
            now = clock()
            yield Finding(step=left.pop(0), outcome=Outcome.PASSED, seconds=now - began)
            began = now
        reached = Step.ANSWER
        facts, notes = await _ask(sources, target, within)
        took = clock() - began
    except HubgateError as error:
        told = step_of(error.cause)
        where = told if told in left else reached or left[0]
        fault = Finding.failed(error, where, clock() - began)
    for step in left:
        beside = Finding(
            step=step,
            outcome=_beside(step, fault),
            message=notes.get(step, ""),
            facts=facts if step is Step.ANSWER else None,
            seconds=took if step is Step.ANSWER else 0.0,
        )
        yield fault if fault and fault.step is step else beside


async def _ask(sources: Sources, target: Target, within: float) -> tuple[Facts, Mapping[Step, str]]:
    """Detect, and ask one small question: what comes of it tells of all steps from the token on.

    Returns:
        What was learned of the model, and notes on steps that passed: what was said of tokens that were refused
        where another was not, and that a model that should complete texts only chats.
    """
    try:
        async with asyncio.timeout(within):
            probed = await probe(sources, target)
            await probed.model.close()
            notes = {Step.AUTHENTICATION: " ".join(probed.refused)}
            if target.endpoint.task is Task.COMPLETION and probed.facts.completes is False:
                notes[Step.MODEL] = _ONLY_CHATS
            return probed.facts, notes
    except TimeoutError:
        raise DeadlineExceeded(
            f"The model did not answer within {within:g} seconds.",
            remedy="If it is waking or loading, ask again in a minute.",
        ) from None


def _beside(step: Step, fault: Finding | None) -> Outcome:
    """Who gets as far as the fault has passed what is before it; without one, all of it."""
    steps = list(Step)
    after = fault is not None and steps.index(step) > steps.index(fault.step)
    return Outcome.SKIPPED if after or step in _NOT_EVERYWHERE else Outcome.PASSED
