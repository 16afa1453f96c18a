"""The source `dedicated`: models at a URL, on an Inference Endpoint or any server in `engines.specs`."""

from __future__ import annotations

from dataclasses import replace

from hubgate.core.models.names import matching_names
from hubgate.domain.calls import Tokenize, Tokens
from hubgate.domain.endpoint import Endpoint, Facts, Target
from hubgate.domain.errors import Cause, HubgateError, InvalidEndpoint, UpstreamUnreadable
from hubgate.upstreams.engines.detect import detect
from hubgate.upstreams.engines.specs import spec_of
from hubgate.upstreams.http.messages import HttpClient
from hubgate.upstreams.hub.deployments import (
    DEPLOYED_FOLDER,
    Deployments,
    check_model,
    deployment_facts,
    find_deployment,
    is_repository,
    merge_facts,
)
from hubgate.upstreams.server import Server
from hubgate.upstreams.server_models import ServerGenerator, ServerUpstream

_WORD = "how"


class DedicatedSource:
    """Detects and opens models at a URL. All share one HTTP client."""

    def __init__(self, client: HttpClient, deployments: Deployments) -> None:
        self._client = client
        self._deployments = deployments

    async def detect(self, target: Target) -> Facts:
        """Detect the engine and the model: what the server reports, completed by what Hugging Face reports about it.

        Raises:
            InvalidEndpoint: the server does another task, or runs another embedding model than the endpoint names, or
                the namespace has no endpoint with this URL.
            UpstreamError: the server is unreachable, asleep, paused or failed, rejects the token, or is unknown.
        """
        endpoint, server = target.endpoint, self._server(target)
        reported = await deployment_facts(self._deployments, target)
        try:
            facts = await detect(endpoint, server)
        except UpstreamUnreadable as error:
            if reported.engine is None or error.cause is not Cause.NOT_AN_API:
                raise
            facts = await detect(replace(endpoint, engine=reported.engine), server)
        return merge_facts(_check_name(endpoint, facts), reported)

    async def runs(self, target: Target) -> bool:
        """Whether Hugging Face reports that the server is running: contacting the server itself would wake it."""
        endpoint, token = target.endpoint, target.first_token
        if endpoint.namespace is None or endpoint.url is None or token is None:
            return False
        try:
            found = find_deployment(await self._deployments.list(endpoint.namespace, token), endpoint.url)
        except HubgateError:
            return False
        return found is not None and found.running

    async def added_prompt(self, target: Target) -> str:
        """The prompt that the server adds to every text, which none reports; empty if it adds none.

        text-embeddings-inference adds one if it was started with `--default-prompt` or `--default-prompt-name`, also in
        `/tokenize`: then the tokens are those of a longer text.
        """
        facts = target.endpoint.facts
        spec = spec_of(target.endpoint.engine or facts.engine)
        if spec.adds_default_prompt:
            return (facts.prompts or {}).get(facts.default_prompt or "", "")
        if spec.tokenize is None:
            return ""
        try:
            found = await self.open(target)(Tokenize(texts=(_WORD,), add_special_tokens=False))
        except HubgateError:
            return ""
        tokens = found.items[0] if isinstance(found, Tokens) and found.items else ()
        before = max((token.stop or 0 for token in tokens), default=0) - len(_WORD)
        if before <= 0:
            return ""
        return " ".join(token.text.strip() for token in tokens if (token.stop or 0) <= before)

    def open(self, target: Target) -> ServerUpstream:
        """The upstream of an endpoint whose facts are known.

        Raises:
            InvalidEndpoint: its engine has no routes for calls about texts, or is not known.
        """
        endpoint, facts = target.endpoint, target.endpoint.facts
        model = facts.model or endpoint.model
        routes = spec_of(endpoint.engine or facts.engine).text_routes(model, facts.raw_scores)
        if not routes:
            raise InvalidEndpoint(
                f"Endpoint [{endpoint.name}] is not known to run any server that hubgate supports.",
                remedy="Register it again, or choose its engine yourself.",
            )
        return ServerUpstream(self._server(target), routes, model, facts.dimensions, path=facts.route)

    def open_generator(self, target: Target) -> ServerGenerator:
        """The generator of an endpoint whose facts are known.

        Raises:
            InvalidEndpoint: its engine does not generate text, or is not known.
        """
        endpoint = target.endpoint
        engine = endpoint.engine or endpoint.facts.engine
        routes = spec_of(engine).generation
        if not routes:
            raise InvalidEndpoint(
                f"The server of endpoint [{endpoint.name}] is {engine or 'unknown'}, which does not generate text.",
                remedy="Register the URL of a server whose model does, or choose its engine yourself.",
                cause=Cause.WRONG_TASK,
            )
        return ServerGenerator(self._server(target), routes, endpoint.facts.model or endpoint.model)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _server(self, target: Target) -> Server:
        return Server(target, self._client)


def _check_name(endpoint: Endpoint, facts: Facts) -> Facts:
    """The facts, with a warning if the server has another name for the model than the endpoint.

    Raises:
        InvalidEndpoint: the server runs another embedding model.
    """
    named, reported = endpoint.model, facts.model
    if not named or not reported or reported == DEPLOYED_FOLDER:
        return facts
    if matching_names(named, [reported]):
        owners = {name.rpartition("/")[0].casefold() for name in (named, reported)}
        if len(owners - {""}) < 2 or not is_repository(reported):
            return facts
    else:
        check_model(endpoint, reported, "the server")
    warning = (
        f"The server calls its model [{reported[:200]}], not [{named[:200]}]. If it is the same model, set [model] to the "
        "server's name and [hub_model] to the name on the Hub."
    )
    return replace(facts, warnings=(*facts.warnings, warning))
