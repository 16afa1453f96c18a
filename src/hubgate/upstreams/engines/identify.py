"""What runs at a dedicated endpoint: the server's own word, and Hugging Face's where the operator says whose it is."""

from __future__ import annotations

from dataclasses import replace

from hubgate.domain.endpoint import Facts, Target
from hubgate.domain.errors import Cause, UpstreamUnreadable
from hubgate.upstreams.engines.detect import detect
from hubgate.upstreams.hub.deployments import Deployments, check_model, completed, deployment_facts
from hubgate.upstreams.server import Server


async def identify(target: Target, server: Server, deployments: Deployments) -> Facts:
    """The facts of a dedicated endpoint.

    Raises:
        InvalidEndpoint: a server of another task; another embedding model than the one that is named; no such URL in
            the namespace.
        UpstreamError: unreachable, asleep, paused, failed, the wrong token, or no server that is known.
    """
    endpoint = target.endpoint
    told = await deployment_facts(deployments, target)
    try:
        facts = await detect(endpoint, server)
    except UpstreamUnreadable as error:
        if told.engine is None or error.cause is not Cause.NOT_AN_API:
            raise
        facts = await detect(replace(endpoint, engine=told.engine), server)
    check_model(endpoint, facts.model, "the server")
    return completed(facts, told)
