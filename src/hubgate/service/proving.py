"""Asking a model what it is: before it is registered, and again to see whether it is still the same."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from hubgate.core.chunking import check_separators
from hubgate.core.guarding import Guarded
from hubgate.core.prompts import known_prefixes
from hubgate.core.vectors import floats, in_encoding
from hubgate.domain.calls import Chat, Complete, Embed, Encoding, InputType, Rerank, SparseEmbed, Vectors
from hubgate.domain.endpoint import WRITING_TASKS, Source, Task, TokenCounts
from hubgate.domain.errors import (
    CallerError,
    Cause,
    DeadlineExceeded,
    EndpointChanged,
    HubgateError,
    InvalidEndpoint,
    UpstreamError,
)
from hubgate.service.fitting import fitted

if TYPE_CHECKING:
    from hubgate.domain.calls import WriteCall
    from hubgate.domain.endpoint import Endpoint, Facts
    from hubgate.domain.ports import Counters, Model, Sources, Upstream, Writer
    from hubgate.domain.secret import Secret

SERVED_TASKS = frozenset(Task)
DEFAULT_SECONDS = 30.0
DOWNLOAD_SECONDS = 3600.0
"""What a local model may take that has to be downloaded first."""
PROBE = Embed(texts=("how big",), input_type=InputType.INGEST)
CHAT_PROBE = Chat(fields={"messages": b'[{"role":"user","content":"how big"}]', "max_tokens": b"8"})
COMPLETE_PROBE = Complete(prompt="how big", fields={"max_tokens": b"8"})
_OTHER_KIND = frozenset(
    {Cause.WRONG_TASK, Cause.MODEL_NOT_FOUND, Cause.NOT_SERVED, Cause.INPUT_REFUSED, Cause.UPSTREAM_FAILED}
)
"""How servers refuse a kind of call that they do not serve: no route, no template, or a failure of their own."""
SAME_VECTOR = 0.99999
"""Cosine above which two vectors of one text are the same but for rounding, whatever the model is called."""
SAME_DIRECTION = 0.999
"""Cosine above which two vectors of one text are of one model; bf16 against f32 gives 0.9999, int8 0.98."""


async def prove(
    sources: Sources,
    draft: Endpoint,
    token: Secret | None,
    within: float | None,
    *,
    any_dimensions: bool = False,
    counters: Counters | None = None,
) -> tuple[Endpoint, Model]:
    """Detect what is there, ask it one small question, and learn from the answer.

    Args:
        sources: where models are.
        draft: what the operator says; its facts are replaced.
        token: the upstream's access token.
        within: seconds for all that the model is asked.
        any_dimensions: whether other dimensions than the operator expects will do.
        counters: what learns to count the model's tokens, if that is wanted; the chunk size that fits it is, too.

    Returns:
        The endpoint with its facts, and its model, open.

    Raises:
        HubgateError: it does not work; says why and what to do.
    """
    check_separators(draft.chunking)
    seconds = within or (DOWNLOAD_SECONDS if draft.source is Source.LOCAL else DEFAULT_SECONDS)
    try:
        async with asyncio.timeout(seconds):
            found = replace(draft, facts=await sources.detect(draft, token))
            model = open_model(sources, found, token)
            try:
                facts = await ask_once(found, model)
                if not any_dimensions:
                    _check_dimensions(draft.dimensions, facts.dimensions)
            except BaseException:
                await model.close()
                raise
    except TimeoutError:
        raise DeadlineExceeded(
            f"The model did not answer within {seconds:g} seconds.",
            remedy="If it is waking or loading, ask again in a minute, or give a longer timeout.",
        ) from None
    proven = replace(draft, dimensions=draft.dimensions and facts.dimensions, facts=facts)
    if counters is None or draft.task is not Task.TEXT_EMBEDDING:
        return proven, model
    try:
        proven = replace(proven, facts=await counters.learn(proven, token))
        return await fitted(proven, cast("Upstream", model), counters.open(proven)), model
    except BaseException:
        await model.close()
        raise


def open_model(sources: Sources, endpoint: Endpoint, token: Secret | None) -> Model:
    """The model of an endpoint whose facts are known. Does no I/O.

    Raises:
        InvalidEndpoint: no such model is there.
    """
    opener = sources.open_writer if endpoint.task in WRITING_TASKS else sources.open
    return opener(endpoint, token)


async def ask_once(endpoint: Endpoint, model: Model) -> Facts:
    """Ask a model one small question of its task; the facts with what the answer shows.

    Raises:
        HubgateError: it does not answer, or not as its task wants.
    """
    facts = endpoint.facts
    if endpoint.task in WRITING_TASKS:
        return await _let_write(endpoint, cast("Writer", model))
    answer = Guarded(cast("Upstream", model), dimensions=None)
    if endpoint.task is Task.RERANK:
        await answer(Rerank(query="test query", texts=("how big",)))
        return facts
    if endpoint.task is Task.SPARSE_EMBEDDING:
        await answer(SparseEmbed(texts=("how big",)))
        return facts
    vectors = await answer(PROBE)
    assert isinstance(vectors, Vectors)  # noqa: S101 - an Embed is answered with Vectors
    return _learned(facts, vectors, endpoint.model or facts.model)


async def _let_write(endpoint: Endpoint, writer: Writer) -> Facts:
    """Which calls it answers. A model without a chat template goes on with texts, and a hosted one often only chats."""
    facts = endpoint.facts
    chats, completes = facts.chats, facts.completes
    failures = []
    if chats is None:
        failures.append(await _failure(writer, CHAT_PROBE))
        chats = failures[-1] is None
    if completes is None:
        failures.append(await _failure(writer, COMPLETE_PROBE))
        completes = failures[-1] is None
    if not (chats or (completes and endpoint.task is Task.COMPLETION)):
        raise next(filter(None, failures), None) or InvalidEndpoint(
            f"This model does not do {endpoint.task}.", cause=Cause.WRONG_TASK
        )
    return replace(facts, chats=chats, completes=completes)


async def _failure(writer: Writer, probe: WriteCall) -> HubgateError | None:
    """Why a call is not answered; `None` if it is.

    Raises:
        HubgateError: something that has nothing to do with the kind of the call.
    """
    try:
        await writer.write(probe)
    except (CallerError, UpstreamError) as error:
        if isinstance(error, UpstreamError) and error.cause not in _OTHER_KIND:
            raise
        return error
    return None


def _learned(facts: Facts, vectors: Vectors, model: str | None) -> Facts:
    vector = in_encoding(vectors, Encoding.F32).items[0]
    return replace(
        facts,
        dimensions=len(vector) // 4,
        fingerprint=base64.b64encode(vector).decode(),
        token_counts=TokenCounts.ENGINE if vectors.exact else TokenCounts.ESTIMATED,
        prefixes=facts.prefixes or dict(known_prefixes(model)),
        warnings=tuple(dict.fromkeys((*facts.warnings, *vectors.warnings))),
    )


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
