"""Validating several servers of one model: each must work, and all must run the same model."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from hubgate.core.errors import error_for_caller
from hubgate.core.rerank_templates import named_template, templated
from hubgate.core.vectors import floats
from hubgate.domain.calls import Rerank
from hubgate.domain.diagnosis import Finding
from hubgate.domain.endpoint import Endpoint, Facts, Source, Target, Task
from hubgate.domain.errors import Cause, EndpointChanged, HubgateError, InvalidEndpoint
from hubgate.domain.ports import Counters, Model, Sources, Upstream
from hubgate.service.inference.replicas import OpenReplica, ReplicatedModel, replica_names
from hubgate.service.registry.diagnosis import diagnose
from hubgate.service.registry.probe import open_model, probe_model
from hubgate.service.registry.validation import FINGERPRINT, differences, validate_endpoint
from hubgate.upstreams.urls import base_url

SCORES_PROBE = Rerank(
    query="Which gas do plants take in?",
    texts=(
        "Plants take in carbon dioxide and release oxygen.",
        "Trees need water, light and air to grow.",
        "The train to Lyon leaves at nine.",
    ),
)
_SAME_LOGIT = 0.25
"""Room for rounding in f16 and bf16. A choice: no pair of rerankers was measured."""
_MIN_SCORE = 1e-6
_SAME_NORM = 0.02
"""A relative difference; a server that normalises and one that does not differ by far more."""
_AWAY = frozenset(
    {
        Cause.NAME_NOT_RESOLVED,
        Cause.CONNECTION_REFUSED,
        Cause.CONNECTION_LOST,
        Cause.UPSTREAM_TIMEOUT,
        Cause.UPSTREAM_FAILED,
        Cause.DEADLINE_EXCEEDED,
        Cause.WAKING,
        Cause.OVERLOADED,
        Cause.PAUSED,
    }
)
"""Why a server that is known may keep its place when another one is added or removed."""


async def validate_replicas(
    sources: Sources,
    draft: Target,
    within: float | None,
    *,
    any_dimensions: bool = False,
    learn: bool = False,
    counters: Counters | None = None,
    former: Endpoint | None = None,
) -> tuple[Target, Model]:
    """Validate each server as an endpoint of its own, and compare the models.

    Args:
        sources: opens models.
        draft: the operator's settings, whose facts are replaced.
        within: a timeout in seconds.
        any_dimensions: see `validate_endpoint`.
        learn: see `validate_endpoint`; for the first server, as `counters` and `former`.
        counters: see `validate_endpoint`.
        former: the endpoint as it was registered before. Its servers may keep their facts if they are away now.

    Returns:
        The endpoint with the facts of all, and the open model.

    Raises:
        HubgateError: a server does not work, or runs another model; the message names it.
    """
    replicas = draft.endpoint.replicas
    _check_distinct(replicas)
    names = replica_names(replicas)
    known: dict[str | None, Facts] = {}
    if former is not None and not any_dimensions:
        known = {each.url: each.facts for each in former.replicas}
    validate = partial(_validate, sources, within=within, any_dimensions=any_dimensions)
    outcomes = await asyncio.gather(
        validate(replace(draft, endpoint=replicas[0]), learn=learn, counters=counters, former=former),
        *(validate(replace(draft, endpoint=each)) for each in replicas[1:]),
        return_exceptions=True,
    )
    found: list[Facts | None] = []
    warnings: list[str] = []
    for name, each, outcome in zip(names, replicas, outcomes, strict=True):
        if isinstance(outcome, Facts):
            found.append(outcome)
        elif not isinstance(outcome, HubgateError):
            raise outcome
        elif _may_keep(known.get(each.url), outcome) and not _all_failed(outcomes):
            found.append(None)
            warnings.append(f"{name} did not answer when the endpoint was changed: {outcome.message}")
        else:
            raise _named(outcome, name)
    _check_same_model(draft.endpoint, names, found)
    complete = [one or known[each.url] for one, each in zip(found, replicas, strict=True)]
    first, *others = complete
    whole = replace(first, replicas=tuple(others), warnings=_warnings(names, complete, warnings))
    dimensions = draft.endpoint.dimensions and first.dimensions
    target = replace(draft, endpoint=replace(draft.endpoint, dimensions=dimensions, facts=whole))
    return target, open_replicas(sources, target)


async def diagnose_replicas(sources: Sources, target: Target) -> AsyncIterator[Finding]:
    """Diagnose each server, and compare its model with the registered one, or with that of the first server."""
    replicas = target.endpoint.replicas
    names = replica_names(replicas)
    reference = target.endpoint.facts if target.endpoint.facts.engine else None
    for name, each in zip(names, replicas, strict=True):
        async for finding in diagnose(sources, replace(target, endpoint=each)):
            found, facts = replace(finding, replica=name), finding.facts
            if facts is not None:
                change = model_difference(reference, facts) if reference else None
                reference = reference or facts
                found = _differs(found, change) if change else found
            yield found


def _differs(finding: Finding, change: str) -> Finding:
    error = EndpointChanged(
        f"{finding.replica} runs another model: {change}.",
        remedy="Run the same model there, or remove its URL from the endpoint.",
    )
    return replace(Finding.failed(error, finding.step, finding.seconds), replica=finding.replica)


def open_replicas(sources: Sources, target: Target) -> ReplicatedModel:
    """Open the model of an endpoint with replicas whose facts are known. Does no I/O."""
    replicas = target.endpoint.replicas
    opened = []
    for name, each in zip(replica_names(replicas), replicas, strict=True):
        one = replace(target, endpoint=each)
        model = open_model(sources, one)
        opened.append(OpenReplica(name, one, model, partial(_prove, sources, one, model, name)))
    return ReplicatedModel(opened)


def model_difference(one: Facts, other: Facts) -> str | None:
    """Why results of the two cannot be mixed; `None` if they can.

    Embeddings are compared by the vector of a known text, its norm included, rerankers by the scores of known pairs,
    and other models by their name and revision.
    """
    found = [
        f"it returns another {label} ({new})"
        if label == FINGERPRINT
        else f"its {label} {'are' if label == 'dimensions' else 'is'} {new}, not {old}"
        for label, old, new in differences(one, other)
    ]
    norms = [_norm(each.fingerprint) for each in (one, other)]
    if not found and all(norms) and abs(norms[0] / norms[1] - 1) > _SAME_NORM:
        found = [
            f"its vectors have the norm {norms[1]:.3g}, not {norms[0]:.3g}: only one of the two normalises them"
        ]
    if one.scores and other.scores and one.rerank_template != other.rerank_template:
        return "only one of the two writes the prompt of the reranker itself"
    if one.scores and other.scores:
        logits = [[_logit(score) for score in each.scores] for each in (one, other)]
        same = all(abs(a - b) < _SAME_LOGIT for a, b in zip(*logits, strict=True))
        pairs = [" / ".join(f"{score:.3f}" for score in each.scores) for each in (other, one)]
        found = [] if same else [f"it scores known pairs {pairs[0]}, not {pairs[1]}"]
    return ", ".join(found) or None


async def _validate(sources: Sources, draft: Target, **options: Any) -> Facts:
    valid, model = await validate_endpoint(sources, draft, options.pop("within"), **options)
    try:
        facts = valid.endpoint.facts
        return await _with_scores(facts, model) if valid.endpoint.task is Task.RERANK else facts
    finally:
        await model.close()


async def _prove(sources: Sources, target: Target, model: Model, name: str) -> None:
    """Raises: EndpointChanged: the server runs another model than the registered one."""
    endpoint = target.endpoint
    if endpoint.task is Task.TEXT_EMBEDDING:
        now = await probe_model(endpoint, model)
    elif endpoint.task is Task.RERANK:
        now = await _with_scores(endpoint.facts, model)
    elif endpoint.source is Source.ROUTER:
        return  # the router names no model in a way that could differ from the request
    else:
        now = await sources.detect(target)
    if change := model_difference(endpoint.facts, now):
        raise EndpointChanged(
            f"{name} runs another model than the registered one: {change}.",
            remedy="Run the registered model there again, or remove its URL from the endpoint.",
        )


async def _with_scores(facts: Facts, model: Model) -> Facts:
    template = named_template(facts.rerank_template)
    call = templated(SCORES_PROBE, template) if template else SCORES_PROBE
    scores = await cast("Upstream", model)(call)
    return replace(facts, scores=tuple(scores.items))  # type: ignore[arg-type] # a Rerank returns Scores


def _check_distinct(replicas: Sequence[Endpoint]) -> None:
    bases = [base_url(each.url).lower() for each in replicas if each.url]
    for base in bases:
        if bases.count(base) > 1:
            raise InvalidEndpoint(
                "[urls] lists the same server twice.", remedy="Each replica needs a URL of its own."
            )


def _may_keep(facts: Facts | None, error: HubgateError) -> bool:
    return facts is not None and facts.engine is not None and error.cause in _AWAY


def _all_failed(outcomes: Sequence[object]) -> bool:
    return not any(isinstance(outcome, Facts) for outcome in outcomes)


def _named(error: HubgateError, name: str) -> HubgateError:
    copy = error_for_caller(error, shared=False)
    copy.message = f"Replica {name}: {error.message}"
    copy.args = (copy.message,)
    return copy


def _check_same_model(endpoint: Endpoint, names: Sequence[str], found: Sequence[Facts | None]) -> None:
    """Raises: InvalidEndpoint: a server runs another model than the first one that answered."""
    first, reference = next((name, facts) for name, facts in zip(names, found, strict=True) if facts)
    for name, facts in zip(names, found, strict=True):
        if facts and (difference := model_difference(reference, facts)):
            raise InvalidEndpoint(
                f"{name} does not run the same model as {first}: {difference}.",
                remedy=f"Run the same model there, or register [{endpoint.name}] without this replica.",
                cause=Cause.MODEL_CHANGED,
            )


def _warnings(names: Sequence[str], facts: Sequence[Facts], more: Sequence[str]) -> tuple[str, ...]:
    limits = {
        name: one.max_input_tokens for name, one in zip(names, facts, strict=True) if one.max_input_tokens
    }
    if len(set(limits.values())) > 1:
        listed = ", ".join(f"{name} {limit}" for name, limit in limits.items())
        more = [
            *more,
            f"The replicas read a different number of tokens ({listed}), so they return different vectors for long texts.",
        ]
    return tuple(dict.fromkeys((*(warning for one in facts for warning in one.warnings), *more)))


def _norm(fingerprint: str | None) -> float:
    return math.hypot(*floats(base64.b64decode(fingerprint))) if fingerprint else 0.0


def _logit(score: float) -> float:
    """Scores that are not probabilities are compared as they are."""
    if not 0 <= score <= 1:
        return score
    bounded = min(max(score, _MIN_SCORE), 1 - _MIN_SCORE)
    return math.log(bounded / (1 - bounded))
