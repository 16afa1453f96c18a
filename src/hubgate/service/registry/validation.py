"""Validating an endpoint: before it is registered, and later to see whether it still runs the same model."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import cast

from hubgate.core.chunking import check_separators
from hubgate.core.vectors import floats
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Facts, Source, Target, Task
from hubgate.domain.errors import DeadlineExceeded, EndpointChanged, InvalidEndpoint
from hubgate.domain.ports import Counters, Model, Sources, Upstream
from hubgate.service.inference.chunk_size import blind_warning, fitted
from hubgate.service.registry.prefixes import learn_prefixes
from hubgate.service.registry.probe import check_not_zeros, open_model, probe

DEFAULT_SECONDS = 30.0
DOWNLOAD_SECONDS = 3600.0
"""For a local model that may have to be downloaded first."""
SAME_VECTOR = 0.99999
"""Two vectors of one text with a higher cosine differ only by rounding, whatever the model is called."""
SAME_MODEL = 0.999
"""Two vectors of one text with a lower cosine are of different models. bf16 against f32 gives 0.9999, int8 0.98."""
_FROM_FILES = ("prefixes", "prefix_source", "prompts", "default_prompt", "original", "shorter_dimensions")
"""Facts that only `learn_prefixes` finds."""
FINGERPRINT = "vector for a known text"


async def validate_endpoint(
    sources: Sources,
    draft: Target,
    within: float | None,
    *,
    any_dimensions: bool = False,
    learn: bool = False,
    counters: Counters | None = None,
    former: Endpoint | None = None,
) -> tuple[Target, Model]:
    """Detect the engine, send one small request, and learn the model's properties from the reply.

    Args:
        sources: opens models.
        draft: the operator's settings, whose facts are replaced. Of several tokens one must be accepted.
        within: a timeout in seconds.
        any_dimensions: whether to accept other dimensions than the operator expects.
        learn: whether to fetch the model's prompts and tokenizer, and to measure the chunk size that fits.
        counters: fetches the tokenizer.
        former: the endpoint as it was registered before, if it was.

    Returns:
        The endpoint with its facts, and its open model.

    Raises:
        HubgateError: validation failed.
    """
    settings = draft.endpoint
    if settings.chunking is not None:
        check_separators(settings.chunking)
    seconds = within or (DOWNLOAD_SECONDS if settings.source is Source.LOCAL else DEFAULT_SECONDS)
    try:
        async with asyncio.timeout(seconds):
            probed = await probe(sources, draft)
    except TimeoutError:
        raise probe_timeout(seconds, "or use a longer timeout") from None
    facts, model = probed.facts, probed.model
    try:
        if not any_dimensions:
            _check_dimensions(settings.dimensions, facts.dimensions)
        valid = replace(settings, dimensions=settings.dimensions and facts.dimensions, facts=facts)
        if not learn:
            before = {name: getattr(settings.facts, name) for name in _FROM_FILES}
            valid = replace(valid, facts=replace(facts, **before))
        elif settings.task is Task.TEXT_EMBEDDING:
            check_not_zeros(facts)
            learned = await _learn(
                sources, Target(valid, probed.token), cast("Upstream", model), counters, former
            )
            valid = replace(valid, facts=learned)
        target = replace(draft, endpoint=valid)
        if probed.token == draft.token:
            return target, model
        with_all_tokens = open_model(sources, target)
    except BaseException:
        await model.close()
        raise
    await model.close()
    return target, with_all_tokens


async def _learn(
    sources: Sources, target: Target, upstream: Upstream, counters: Counters | None, former: Endpoint | None
) -> Facts:
    """The facts of an embedding model that its files and further requests show."""
    endpoint = replace(target.endpoint, facts=await learn_prefixes(sources, target, former))
    if counters is None:
        return endpoint.facts
    endpoint = replace(endpoint, facts=await counters.learn(replace(target, endpoint=endpoint)))
    counter = counters.open(endpoint)
    endpoint = await fitted(endpoint, upstream, counter)
    warning = blind_warning(endpoint, counter)
    facts = endpoint.facts
    return replace(facts, warnings=(*facts.warnings, warning)) if warning else facts


def probe_timeout(seconds: float, remedy: str = "") -> DeadlineExceeded:
    return DeadlineExceeded(
        f"The model did not answer within {seconds:g} seconds.",
        remedy=f"If it is starting or loading, retry in a minute{', ' if remedy else ''}{remedy}.",
    )


def _check_dimensions(expected: int | None, measured: int | None) -> None:
    if expected not in (None, measured):
        raise InvalidEndpoint(
            f"The retrieved embeddings size [{measured}] does not match the size specified in the settings "
            f"[{expected}].",
            remedy="Omit [dimensions], or register the intended model.",
        )


def check_fallback(endpoint: Endpoint, fallback: Endpoint) -> None:
    """Check that an endpoint can be the fallback of another. The facts of both must be known.

    Raises:
        InvalidEndpoint: it cannot.
    """
    same_task = endpoint.task is fallback.task or {endpoint.task, fallback.task} <= GENERATION_TASKS
    reason = None if same_task else f"its task is {fallback.task}, not {endpoint.task}"
    if same_task and endpoint.task in {Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING}:
        reason = describe_change(endpoint.facts, fallback.facts) or unverified(endpoint.facts, fallback.facts)
    if reason:
        raise InvalidEndpoint(
            f"Endpoint [{fallback.name}] cannot be the fallback of [{endpoint.name}]: {reason}",
            remedy="Vectors of different models cannot be compared. Choose an endpoint with the same model and task.",
        )


def unverified(one: Facts, other: Facts) -> str | None:
    """Why it is not known whether two models are the same that show no difference; `None` if it is known."""
    no_fingerprint = None in (one.fingerprint, other.fingerprint)
    if no_fingerprint and one.model != other.model:
        return "it cannot be verified that both run the same model"
    return None


def changed_error(name: str, change: str) -> EndpointChanged:
    """The error of calls to an endpoint that now runs another model."""
    return EndpointChanged(
        change,
        remedy="Vectors of different models cannot be compared. Run the registered model again, or accept the new one "
        f"and re-embed all documents: hubgate accept {name}.",
    )


def describe_change(before: Facts, now: Facts) -> str | None:
    """Why vectors from before and from now cannot be compared; `None` if they can.

    The fingerprint decides: a repository's commit also changes with its README, and a model's name with the way the
    server is started.
    """
    changes = [
        f"it returns another {label} ({new})"
        if label == FINGERPRINT
        else f"its {label} was {old} and is {new}"
        for label, old, new in differences(before, now)
    ]
    return f"Another model than the registered one is running: {', '.join(changes)}." if changes else None


def differences(before: Facts, now: Facts) -> list[tuple[str, object, object]]:
    """What shows that two models differ: a label, the former value and the value now."""
    cosine = _cosine(before.fingerprint, now.fingerprint)
    if cosine is not None and cosine >= SAME_VECTOR:
        return []
    found: list[tuple[str, object, object]] = [
        (label, old, new)
        for label, old, new in (
            ("model", before.model, now.model),
            ("revision", before.revision, now.revision),
            ("dimensions", before.dimensions, now.dimensions),
        )
        if old is not None and new is not None and old != new
    ]
    if not found and cosine is not None and cosine < SAME_MODEL:
        found = [(FINGERPRINT, "the same", f"cosine {cosine:.4f}")]
    return found


def _cosine(one: str | None, other: str | None) -> float | None:
    """Of two fingerprints; `None` if they cannot be compared."""
    if not one or not other or len(one) != len(other):
        return None
    first, second = (floats(base64.b64decode(text)) for text in (one, other))
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    size = (sum(a * a for a in first) * sum(b * b for b in second)) ** 0.5
    return dot / size if size else 0.0
