"""The prompts of a remote model, from the files of its repository."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hubgate.core.prompts import find_prefixes
from hubgate.domain.endpoint import PrefixSource, Target
from hubgate.domain.errors import Cause, HubgateError, UpstreamUnreachable, UpstreamUnreadable
from hubgate.domain.hub import ModelCard, ModelPrompts
from hubgate.domain.ports import Hub
from hubgate.domain.secret import Secret
from hubgate.upstreams.hub.tokenizers import FETCH_SECONDS, NAME_MISSING, hub_token, repository_named


async def read_prompts(hub: Hub, target: Target, within: float = FETCH_SECONDS) -> ModelPrompts:
    """The prompts of an endpoint's model: see `prompts_of`.

    Raises:
        HubgateError: the model's name on the Hub is not known, or the Hub does not respond with it in time.
    """
    named = repository_named(target.endpoint)
    if named is None:
        raise UpstreamUnreadable(NAME_MISSING, cause=Cause.MODEL_NOT_FOUND)
    token = hub_token(target.first_token)
    try:
        async with asyncio.timeout(within):
            return await prompts_of(hub, await hub.model(named[0], token), token)
    except TimeoutError:
        raise UpstreamUnreachable(
            f"The Hub did not respond within {within:g} seconds.", retryable=True
        ) from None


async def prompts_of(hub: Hub, card: ModelCard, token: Secret | None) -> ModelPrompts:
    """The prompts of a model on the Hub. A quantized copy without any has those of its original.

    Raises:
        HubgateError: they cannot be read.
    """
    original = card
    if card.prompts == ModelPrompts() and card.quantized_from:
        original = await _original(hub, card, card.quantized_from, token)
    if original.prompts is None:
        raise UpstreamUnreadable(f"The files of {original.name} could not be read.")
    return replace(
        original.prompts,
        original=card.quantized_from,
        tuned_from=card.tuned_from,
        shorter_dimensions=card.shorter_dimensions or original.shorter_dimensions,
    )


async def _original(hub: Hub, copy: ModelCard, name: str, token: Secret | None) -> ModelCard:
    """The card of the original. That of the copy if it cannot be read, and hubgate's table knows the original."""
    is_known = find_prefixes(name, None).source is PrefixSource.TABLE
    try:
        original = await hub.model(name, token)
    except HubgateError:
        if is_known:
            return copy
        raise
    return copy if is_known and original.prompts is None else original
