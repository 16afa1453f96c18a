"""The prompts of a remote model, from the files of its repository."""

from __future__ import annotations

import asyncio

from hubgate.domain.endpoint import Target
from hubgate.domain.errors import Cause, UpstreamUnreachable, UpstreamUnreadable
from hubgate.domain.hub import ModelPrompts
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
            card = await hub.model(named[0], token)
            if card.prompts == ModelPrompts() and card.quantized_from:
                card = await hub.model(card.quantized_from, token)
    except TimeoutError:
        raise UpstreamUnreachable(
            f"The Hub did not respond within {within:g} seconds.", retryable=True
        ) from None
    if card.prompts is None:
        raise UpstreamUnreadable(f"The files of {card.name} could not be read.")
    return card.prompts
