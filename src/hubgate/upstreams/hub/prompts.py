"""The prompts of a remote model, from the files of its repository."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hubgate.core.prompts import find_prefixes
from hubgate.domain.endpoint import PrefixSource, Target
from hubgate.domain.errors import Cause, HubgateError, UpstreamUnreachable, UpstreamUnreadable
from hubgate.domain.hub import ModelCard, ModelPrompts
from hubgate.domain.secret import Secret
from hubgate.upstreams.hub.client import HubClient
from hubgate.upstreams.hub.tokenizers import FETCH_SECONDS, NAME_MISSING, hub_token, repository_named


async def read_prompts(hub: HubClient, target: Target, within: float = FETCH_SECONDS) -> ModelPrompts:
    """The prompts of an endpoint's model. A quantized copy without any has those of its original.

    Raises:
        HubgateError: the model's name on the Hub is not known, or the Hub does not respond with it in time.
    """
    named = repository_named(target.endpoint)
    if named is None:
        raise UpstreamUnreadable(NAME_MISSING, cause=Cause.MODEL_NOT_FOUND)
    token = hub_token(target.first_token)
    try:
        async with asyncio.timeout(within):
            card = own = await hub.model(named[0], token)
            if card.prompts == ModelPrompts() and card.quantized_from:
                card = await _original(hub, card, card.quantized_from, token)
    except TimeoutError:
        raise UpstreamUnreachable(
            f"The Hub did not respond within {within:g} seconds.", retryable=True
        ) from None
    if card.prompts is None:
        raise UpstreamUnreadable(f"The files of {card.name} could not be read.")
    return replace(card.prompts, original=own.quantized_from, tuned_from=own.tuned_from)


async def _original(hub: HubClient, copy: ModelCard, name: str, token: Secret | None) -> ModelCard:
    """The card of the original. That of the copy if it cannot be read, and hubgate's table knows the original."""
    is_known = find_prefixes(name, None).source is PrefixSource.TABLE
    try:
        original = await hub.model(name, token)
    except HubgateError:
        if is_known:
            return copy
        raise
    return copy if is_known and original.prompts is None else original
