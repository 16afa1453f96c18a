"""Sending a model one small request for its task, to see that it works and to learn its properties."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, cast

from hubgate.core.vector_guard import VectorGuard
from hubgate.core.vectors import floats, in_encoding
from hubgate.domain.calls import Call, Chat, Complete, Embed, Encoding, GenerationCall, SparseEmbed, Vectors
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Facts, InputType, Target, Task, TokenCounts
from hubgate.domain.errors import (
    CallerError,
    Cause,
    HubgateError,
    InvalidEndpoint,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreadable,
)
from hubgate.domain.ports import Model, Sources, TextGenerator, Upstream
from hubgate.domain.secret import Secret
from hubgate.service.registry.ranking import probe_reranker

PROBE = Embed(texts=("how big",), input_type=InputType.INGEST)
_PROBES: Mapping[Task, Call] = {
    Task.TEXT_EMBEDDING: PROBE,
    Task.SPARSE_EMBEDDING: SparseEmbed(texts=("how big",)),
}
CHAT_PROBE = Chat(fields={"messages": b'[{"role":"user","content":"how big"}]', "max_tokens": b"8"})
COMPLETE_PROBE = Complete(prompt="how big", fields={"max_tokens": b"8"})
_UNSUPPORTED = frozenset(
    {Cause.WRONG_TASK, Cause.MODEL_NOT_FOUND, Cause.NOT_SERVED, Cause.INPUT_REFUSED, Cause.UPSTREAM_FAILED}
)
"""How servers refuse a kind of call that they do not support: no route, no chat template, or a server error."""
_TOKEN_STATUSES = frozenset({401, 402, 429})
"""The token is invalid, has no credit, or is over its limit. Another token may work."""


class ProbeResult(NamedTuple):
    """The facts, the model, opened with the first token that was accepted, and messages about refused tokens."""

    facts: Facts
    model: Model
    token: Secret | None
    refused: tuple[str, ...]


async def probe(sources: Sources, draft: Target) -> ProbeResult:
    """Detect the engine and send a small request, with each token in turn until one is accepted.

    Raises:
        UpstreamRefused: all tokens were refused; the message has each reason.
        HubgateError: it does not work.
    """
    tokens = tuple(dict.fromkeys(draft.token.each())) if draft.token else ()
    if len(tokens) < 2:
        return ProbeResult(*await _probe_with_token(sources, draft), draft.token, ())
    refusals: dict[Secret, UpstreamRefused] = {}
    for token in tokens:
        try:
            facts, model = await _probe_with_token(sources, replace(draft, token=token))
        except UpstreamRefused as error:
            if error.status not in _TOKEN_STATUSES:
                raise
            refusals[token] = error
            continue
        refused = tuple(
            f"The token {bad.hint} was refused: {error.message}" for bad, error in refusals.items()
        )
        return ProbeResult(replace(facts, warnings=(*facts.warnings, *refused)), model, token, refused)
    raise _all_refused(refusals)


async def _probe_with_token(sources: Sources, draft: Target) -> tuple[Facts, Model]:
    detected = replace(draft.endpoint, facts=await sources.detect(draft))
    model = open_model(sources, replace(draft, endpoint=detected))
    try:
        facts = await probe_model(detected, model)
        if facts.raw_scores == detected.facts.raw_scores:
            return facts, model
        reopened = open_model(sources, replace(draft, endpoint=replace(detected, facts=facts)))
    except BaseException:
        await model.close()
        raise
    await model.close()
    return facts, reopened


def _all_refused(refusals: Mapping[Secret, UpstreamRefused]) -> UpstreamRefused:
    first = min(refusals.values(), key=lambda error: not error.retryable)  # retrying is the easiest remedy
    reasons = " ".join(f"{token.hint}: {error.message}" for token, error in refusals.items())
    return UpstreamRefused(
        f"All {len(refusals)} tokens were refused. {reasons}",
        status=first.status,
        server_message=first.server_message,
        remedy=first.remedy,
        cause=first.cause,
        retryable=first.retryable,
        retry_after=first.retry_after,
    )


def open_model(sources: Sources, target: Target) -> Model:
    """Open the model of an endpoint whose facts are known. Does no I/O.

    Raises:
        InvalidEndpoint: the engine does not support the task.
    """
    opener = sources.open_generator if target.endpoint.task in GENERATION_TASKS else sources.open
    return opener(target)


async def probe_model(endpoint: Endpoint, model: Model) -> Facts:
    """Send a model one small request for its task; returns the facts with what the reply shows.

    Raises:
        HubgateError: it does not answer, or its reply does not fit the task.
    """
    facts = endpoint.facts
    if endpoint.task in GENERATION_TASKS:
        return await _probe_generation(endpoint, cast("TextGenerator", model))
    if endpoint.task is Task.RERANK:
        return await probe_reranker(endpoint, cast("Upstream", model))
    # A model that returns zeros now is another one than the registered one.
    answer = VectorGuard(cast("Upstream", model), dimensions=None, allows_zeros=True)
    result = await answer(_PROBES[endpoint.task])
    if isinstance(result, Vectors):
        return _facts_of(result, facts)
    return facts


def check_not_zeros(facts: Facts) -> None:
    """Check that a new model makes vectors. One that is registered is compared with its former vector instead.

    Raises:
        UpstreamUnreadable: the vector of the known text has only zeros.
    """
    if facts.fingerprint and not any(floats(base64.b64decode(facts.fingerprint))):
        raise UpstreamUnreadable(
            "The model returned a vector of zeros for a test text, which has no direction to compare.",
            remedy="Check how the model is served: its weights, the precision that it runs in, and its pooling.",
        )


async def _probe_generation(endpoint: Endpoint, model: TextGenerator) -> Facts:
    """Find out which calls it supports: a model without a chat template only completes, a hosted one often only chats.

    The server's own claim not to support a call is trusted; a claim to support one only if another call succeeded.
    """
    is_chat = endpoint.task is Task.CHAT_COMPLETION
    supports = {Chat: endpoint.facts.chats, Complete: endpoint.facts.completes}
    failures: list[HubgateError] = []
    has_answered = False
    for call in (CHAT_PROBE, COMPLETE_PROBE) if is_chat else (COMPLETE_PROBE, CHAT_PROBE):
        claimed = supports[type(call)]
        if claimed is None or (claimed and not has_answered):
            failure = await _failure(model, call)
            failures += [failure] if failure else []
            supports[type(call)] = failure is None
            has_answered = has_answered or failure is None
    if not (supports[Chat] if is_chat else has_answered):
        wrong = InvalidEndpoint(f"This model does not support {endpoint.task}.", cause=Cause.WRONG_TASK)
        raise failures[0] if failures else wrong
    return replace(endpoint.facts, chats=supports[Chat], completes=supports[Complete])


async def _failure(model: TextGenerator, call: GenerationCall) -> HubgateError | None:
    """The error if the model does not support a call.

    Raises:
        HubgateError: the call failed for another reason.
    """
    try:
        await model.generate(call)
    except (CallerError, UpstreamError) as error:
        if isinstance(error, UpstreamError) and error.cause not in _UNSUPPORTED:
            raise
        return error
    return None


def _facts_of(vectors: Vectors, facts: Facts) -> Facts:
    vector = in_encoding(vectors, Encoding.F32).items[0]
    return replace(
        facts,
        dimensions=len(vector) // 4,
        fingerprint=base64.b64encode(vector).decode(),
        token_counts=TokenCounts.ENGINE if vectors.exact else TokenCounts.ESTIMATED,
        warnings=tuple(dict.fromkeys((*facts.warnings, *vectors.warnings))),
    )
