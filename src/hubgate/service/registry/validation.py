"""Asking a model what it is: before it is registered, and again to see whether it is still the same."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import cast

from hubgate.core.chunking import check_separators
from hubgate.core.vectors import floats
from hubgate.domain.endpoint import Facts, Source, Target, Task
from hubgate.domain.errors import DeadlineExceeded, EndpointChanged, InvalidEndpoint
from hubgate.domain.ports import Counters, Model, Sources, Upstream
from hubgate.service.inference.chunk_size import blind_warning, fitted
from hubgate.service.registry.probe import open_model, probe

SERVED_TASKS = frozenset(Task)
DEFAULT_SECONDS = 30.0
DOWNLOAD_SECONDS = 3600.0
"""What a local model may take that has to be downloaded first."""
SAME_VECTOR = 0.99999
"""Cosine above which two vectors of one text are the same but for rounding, whatever the model is called."""
SAME_DIRECTION = 0.999
"""Cosine above which two vectors of one text are of one model; bf16 against f32 gives 0.9999, int8 0.98."""


async def prove(
    sources: Sources,
    draft: Target,
    within: float | None,
    *,
    any_dimensions: bool = False,
    counters: Counters | None = None,
) -> tuple[Target, Model]:
    """Detect what is there, ask it one small question, and learn from the answer.

    Args:
        sources: where models are.
        draft: the operator's settings, whose facts are replaced; the first token that is not refused will do.
        within: seconds for all that the model is asked.
        any_dimensions: whether other dimensions than the operator expects will do.
        counters: what learns to count the model's tokens, if that is wanted; the chunk size that fits it is, too.

    Returns:
        The endpoint with its facts, and its model, open.

    Raises:
        HubgateError: it does not work; says why and what to do.
    """
    settings = draft.endpoint
    if settings.chunking is not None:
        check_separators(settings.chunking)
    seconds = within or (DOWNLOAD_SECONDS if settings.source is Source.LOCAL else DEFAULT_SECONDS)
    try:
        async with asyncio.timeout(seconds):
            probed = await probe(sources, draft)
    except TimeoutError:
        raise DeadlineExceeded(
            f"The model did not answer within {seconds:g} seconds.",
            remedy="If it is waking or loading, ask again in a minute, or give a longer timeout.",
        ) from None
    facts, model = probed.facts, probed.model
    try:
        if not any_dimensions:
            _check_dimensions(settings.dimensions, facts.dimensions)
        proven = replace(settings, dimensions=settings.dimensions and facts.dimensions, facts=facts)
        if counters is not None and settings.task is Task.TEXT_EMBEDDING:
            proven = replace(proven, facts=await counters.learn(Target(proven, probed.token)))
            counter = counters.open(proven)
            proven = await fitted(proven, cast("Upstream", model), counter)
            if warning := blind_warning(proven, counter):
                proven = replace(
                    proven, facts=replace(proven.facts, warnings=(*proven.facts.warnings, warning))
                )
        target = replace(draft, endpoint=proven)
        if probed.token == draft.token:
            return target, model
        bearer = open_model(sources, target)
    except BaseException:
        await model.close()
        raise
    await model.close()
    return target, bearer


def _check_dimensions(expected: int | None, measured: int | None) -> None:
    if expected not in (None, measured):
        raise InvalidEndpoint(
            f"The retrieved embeddings size [{measured}] does not match the size specified in the settings "
            f"[{expected}].",
            remedy="Leave [dimensions] out, or register the model that you meant.",
        )


def refusal(name: str, changed: str) -> EndpointChanged:
    """The error of calls to an endpoint behind which another model runs, as `changed` says."""
    return EndpointChanged(
        changed,
        remedy="Vectors of two models cannot be compared. Run the former model again, or accept the new one and "
        f"embed all documents anew: hubgate accept {name}.",
    )


def what_changed(before: Facts, now: Facts) -> str | None:
    """What makes vectors of before and of now incomparable, if anything does.

    The vector of a known text has the last word: a repository's commit changes with its page, too, and a model's name
    with the way it is started.
    """
    cosine = _cosine(before.fingerprint, now.fingerprint)
    if cosine is not None and cosine >= SAME_VECTOR:
        return None
    changes = [
        f"its {label} was {old} and is {new}"
        for label, old, new in (
            ("model", before.model, now.model),
            ("revision", before.revision, now.revision),
            ("dimensions", before.dimensions, now.dimensions),
        )
        if old is not None and new is not None and old != new
    ]
    if not changes and cosine is not None and cosine < SAME_DIRECTION:
        changes = [f"it gives a known text another vector (cosine {cosine:.4f} to the registered one)"]
    return f"Another model answers than the registered one: {', '.join(changes)}." if changes else None


def _cosine(one: str | None, other: str | None) -> float | None:
    """Of two fingerprints; `None` if they cannot be compared."""
    if not one or not other or len(one) != len(other):
        return None
    first, second = (floats(base64.b64decode(text)) for text in (one, other))
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    size = (sum(a * a for a in first) * sum(b * b for b in second)) ** 0.5
    return dot / size if size else 0.0
