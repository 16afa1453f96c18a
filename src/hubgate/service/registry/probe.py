"""Asking a model one small question of its task, and with which of its tokens: what the answer shows is learned."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, cast

from hubgate.core.prompts import family_prefixes
from hubgate.core.vector_guard import VectorGuard
from hubgate.core.vectors import in_encoding
from hubgate.domain.calls import (
    Chat,
    Complete,
    Embed,
    Encoding,
    GenerationCall,
    InputType,
    Rerank,
    SparseEmbed,
    Vectors,
)
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Facts, Target, Task, TokenCounts
from hubgate.domain.errors import (
    CallerError,
    Cause,
    HubgateError,
    InvalidEndpoint,
    UpstreamError,
    UpstreamRefused,
)
from hubgate.domain.ports import Model, Sources, TextGenerator, Upstream
from hubgate.domain.secret import Secret

PROBE = Embed(texts=("how big",), input_type=InputType.INGEST)
CHAT_PROBE = Chat(fields={"messages": b'[{"role":"user","content":"how big"}]', "max_tokens": b"8"})
COMPLETE_PROBE = Complete(prompt="how big", fields={"max_tokens": b"8"})
_OTHER_KIND = frozenset(
    {Cause.WRONG_TASK, Cause.MODEL_NOT_FOUND, Cause.NOT_SERVED, Cause.INPUT_REFUSED, Cause.UPSTREAM_FAILED}
)
"""How servers refuse a kind of call that they do not serve: no route, no template, or a failure of their own."""
_ABOUT_THE_TOKEN = frozenset({401, 402, 429})
"""Statuses of a token that is not known, not paid for, or used up; another may be better off."""


class Probed(NamedTuple):
    """What a model is, the model, open with the one token that was not refused, and what was said of those that were."""

    facts: Facts
    model: Model
    token: Secret | None
    refused: tuple[str, ...]


async def probe(sources: Sources, draft: Target) -> Probed:
    """Detect what is there and ask it once, with one token after the other until one is not refused.

    Raises:
        UpstreamRefused: it refuses all of them; says why, of each.
        HubgateError: it does not work.
    """
    tokens = tuple(dict.fromkeys(draft.token.each())) if draft.token else ()
    if len(tokens) < 2:
        return Probed(*await _asked(sources, draft), draft.token, ())
    refusals: dict[Secret, UpstreamRefused] = {}
    for one in tokens:
        try:
            facts, model = await _asked(sources, replace(draft, token=one))
        except UpstreamRefused as error:
            if error.status not in _ABOUT_THE_TOKEN:
                raise
            refusals[one] = error
            continue
        refused = tuple(
            f"The token {bad.hint} was refused: {error.message}" for bad, error in refusals.items()
        )
        return Probed(replace(facts, warnings=(*facts.warnings, *refused)), model, one, refused)
    raise _all_refused(refusals)


async def _asked(sources: Sources, draft: Target) -> tuple[Facts, Model]:
    found = replace(draft.endpoint, facts=await sources.detect(draft))
    model = open_model(sources, replace(draft, endpoint=found))
    try:
        return await ask_once(found, model), model
    except BaseException:
        await model.close()
        raise


def _all_refused(refusals: Mapping[Secret, UpstreamRefused]) -> UpstreamRefused:
    """What is cured by waiting comes first: then the others need not be looked at now."""
    first = min(refusals.values(), key=lambda error: not error.retryable)
    told = " ".join(f"{token.hint}: {error.message}" for token, error in refusals.items())
    return UpstreamRefused(
        f"Each of the {len(refusals)} tokens was refused. {told}",
        status=first.status,
        server_message=first.server_message,
        remedy=first.remedy,
        cause=first.cause,
        retryable=first.retryable,
        retry_after=first.retry_after,
    )


def open_model(sources: Sources, target: Target) -> Model:
    """The model of an endpoint whose facts are known. Does no I/O.

    Raises:
        InvalidEndpoint: no such model is there.
    """
    opener = sources.open_generator if target.endpoint.task in GENERATION_TASKS else sources.open
    return opener(target)


async def ask_once(endpoint: Endpoint, model: Model) -> Facts:
    """Ask a model one small question of its task; the facts with what the answer shows.

    Raises:
        HubgateError: it does not answer, or not as its task wants.
    """
    facts = endpoint.facts
    if endpoint.task in GENERATION_TASKS:
        return await _let_write(endpoint, cast("TextGenerator", model))
    answer = VectorGuard(cast("Upstream", model), dimensions=None)
    if endpoint.task is Task.RERANK:
        await answer(Rerank(query="test query", texts=("how big",)))
        return facts
    if endpoint.task is Task.SPARSE_EMBEDDING:
        await answer(SparseEmbed(texts=("how big",)))
        return facts
    vectors = await answer(PROBE)
    assert isinstance(vectors, Vectors)  # noqa: S101 - an Embed is answered with Vectors
    return _learned(facts, vectors, endpoint.model or facts.model)


async def _let_write(endpoint: Endpoint, writer: TextGenerator) -> Facts:
    """Which calls it answers. A model without a chat template goes on with texts, and a hosted one often only chats.

    What others say it does is believed only beside a call that it has answered; what they say it does not, always.
    """
    chatting = endpoint.task is Task.CHAT_COMPLETION
    does = {Chat: endpoint.facts.chats, Complete: endpoint.facts.completes}
    failures: list[HubgateError] = []
    answered = False
    for question in (CHAT_PROBE, COMPLETE_PROBE) if chatting else (COMPLETE_PROBE, CHAT_PROBE):
        said = does[type(question)]
        if said is None or (said and not answered):
            failure = await _failure(writer, question)
            failures += [failure] if failure else []
            does[type(question)] = failure is None
            answered = answered or failure is None
    if not (does[Chat] if chatting else answered):
        wrong = InvalidEndpoint(f"This model does not do {endpoint.task}.", cause=Cause.WRONG_TASK)
        raise failures[0] if failures else wrong
    return replace(endpoint.facts, chats=does[Chat], completes=does[Complete])


async def _failure(writer: TextGenerator, probe: GenerationCall) -> HubgateError | None:
    """Why a call is not answered; `None` if it is.

    Raises:
        HubgateError: something that has nothing to do with the kind of the call.
    """
    try:
        await writer.generate(probe)
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
        prefixes=facts.prefixes or dict(family_prefixes(model)),
        warnings=tuple(dict.fromkeys((*facts.warnings, *vectors.warnings))),
    )
