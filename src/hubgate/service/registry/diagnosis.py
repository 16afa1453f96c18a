"""Diagnosing an endpoint: each step on the way to its model, with its duration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from hubgate.domain.diagnosis import Finding, Outcome, Step, step_of
from hubgate.domain.endpoint import Facts, Target, Task
from hubgate.domain.errors import HubgateError
from hubgate.domain.ports import Clock, Sources
from hubgate.service.registry.prefixes import learn_prefixes
from hubgate.service.registry.probe import ProbeResult, check_not_zeros, probe
from hubgate.service.registry.validation import DEFAULT_SECONDS, probe_timeout

_OPTIONAL_STEPS = frozenset({Step.ADDRESS, Step.DNS, Step.TCP, Step.TLS})
"""Skipped for a local model, or a server without TLS: the source does not report them."""
_ONLY_CHATS = (
    "This server supports only chat, not text completion: choose the task chat_completion (conversational)."
)


async def diagnose(
    sources: Sources,
    target: Target,
    *,
    within: float = DEFAULT_SECONDS,
    clock: Clock = time.monotonic,
) -> AsyncIterator[Finding]:
    """Run all steps and yield each result. The steps after one that fails are skipped.

    Args:
        sources: opens models.
        target: the endpoint, registered or not.
        within: a timeout in seconds for all requests to the model.
        clock: a monotonic clock in seconds.
    """
    remaining, began = list(Step), clock()
    failed, reached = None, None
    notes: Mapping[Step, str] = {}
    facts: Facts | None = None
    seconds = 0.0
    try:
        async for step in sources.reach(target.endpoint):
            while remaining[0] is not step:
                yield Finding(step=remaining.pop(0), outcome=Outcome.SKIPPED)
            now = clock()
            yield Finding(step=remaining.pop(0), outcome=Outcome.PASSED, seconds=now - began)
            began = now
        reached = Step.ANSWER
        facts, notes = await _probe(sources, target, within)
        seconds = clock() - began
    except HubgateError as error:
        step_of_cause = step_of(error.cause)
        step = step_of_cause if step_of_cause in remaining else reached or remaining[0]
        failed = Finding.failed(error, step, clock() - began)
    for step in remaining:
        if failed and failed.step is step:
            yield failed
            continue
        is_answer = step is Step.ANSWER
        yield Finding(
            step=step,
            outcome=_outcome(step, failed),
            message=notes.get(step, ""),
            facts=facts if is_answer else None,
            seconds=seconds if is_answer else 0.0,
        )


async def _probe(sources: Sources, target: Target, within: float) -> tuple[Facts, Mapping[Step, str]]:
    """Probe the model, which covers all steps from the token on.

    Returns:
        The facts, and warnings for steps that passed: refused tokens, and a completion model that only chats.
    """
    try:
        async with asyncio.timeout(within):
            probed = await probe(sources, target)
            facts = await _with_prefixes(sources, target, probed)
    except TimeoutError:
        raise probe_timeout(within) from None
    notes = {Step.AUTHENTICATION: " ".join(probed.refused)}
    if target.endpoint.task is Task.COMPLETION and probed.facts.completes is False:
        notes[Step.MODEL] = _ONLY_CHATS
    return facts, notes


async def _with_prefixes(sources: Sources, target: Target, probed: ProbeResult) -> Facts:
    """The facts with the prefixes that a registration would find."""
    endpoint = target.endpoint
    try:
        if endpoint.task is not Task.TEXT_EMBEDDING:
            return probed.facts
        check_not_zeros(probed.facts)
        detected = Target(replace(endpoint, facts=probed.facts), probed.token)
        return await learn_prefixes(sources, detected)
    finally:
        await probed.model.close()


def _outcome(step: Step, failed: Finding | None) -> Outcome:
    """The outcome of a step that did not fail: steps before a failed one have passed."""
    steps = list(Step)
    is_after = failed is not None and steps.index(step) > steps.index(failed.step)
    return Outcome.SKIPPED if is_after or step in _OPTIONAL_STEPS else Outcome.PASSED
