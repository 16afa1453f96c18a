"""The Hub: finding models, reading what is known of one, and whose a token is."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hubgate.domain.endpoint import Task
from hubgate.domain.errors import Cause, HubgateError, InvalidRequest, NotFound, UpstreamRefused
from hubgate.domain.hub import MAX_MODELS, Deployment, HubUser, ModelCard, ModelSearch
from hubgate.domain.ports import Clock
from hubgate.domain.secret import Secret
from hubgate.settings import Settings
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.messages import HttpClient
from hubgate.upstreams.http.pool import PooledClient
from hubgate.upstreams.hub.cards import (
    CHAT_TAG,
    SPARSE_TAG,
    dense_folder,
    read_card,
    read_dimensions,
    read_files,
    read_length,
    read_user,
)
from hubgate.upstreams.hub.deployments import Deployments
from hubgate.upstreams.hub.errors import HUB_TROUBLES
from hubgate.upstreams.hub.memo import Remembered
from hubgate.upstreams.hub.requests import HubSite, digest

HUB = "https://huggingface.co"
SEARCH_SECONDS = 300.0
CARD_SECONDS = 600.0
USER_SECONDS = 600.0
_MOST_KEPT = 256
_REPLY_BYTES = 16 << 20

_SEARCHES: dict[Task, tuple[tuple[str, str], ...]] = {
    Task.TEXT_EMBEDDING: (("pipeline_tag", "feature-extraction"), ("pipeline_tag", "sentence-similarity")),
    Task.SPARSE_EMBEDDING: (("filter", SPARSE_TAG),),
    Task.RERANK: (("pipeline_tag", "text-ranking"),),
    Task.COMPLETION: (("pipeline_tag", "text-generation"),),
    Task.CHAT_COMPLETION: (("filter", CHAT_TAG),),
}
"""What the Hub is asked for each task; one search for each row, put together."""
_FIELDS = (
    "downloads",
    "gated",
    "gguf",
    "inferenceProviderMapping",
    "lastModified",
    "library_name",
    "likes",
    "pipeline_tag",
    "private",
    "safetensors",
    "sha",
    "tags",
    "trendingScore",
)
_REPOSITORY = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)?", re.ASCII)
_LINK = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)


class HubClient:
    """Implements `domain.ports.Hub`.

    Args:
        client: sends the requests; closed with this.
        deployments: the Inference Endpoints' own interface.
        hf_endpoint: the Hub's address where it is another than the usual one.
        offline: never ask it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        client: HttpClient,
        deployments: Deployments,
        *,
        hf_endpoint: str | None = None,
        offline: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        self._client = client
        self._deployments = deployments
        self._site = HubSite(
            client,
            hf_endpoint or HUB,
            name="The Hub",
            setting="HF_ENDPOINT",
            troubles=HUB_TROUBLES,
            offline=offline,
            clock=clock,
        )
        self._searches: Remembered[Sequence[ModelCard]] = Remembered(
            seconds=SEARCH_SECONDS, most=_MOST_KEPT, clock=clock
        )
        self._cards: Remembered[ModelCard] = Remembered(seconds=CARD_SECONDS, most=_MOST_KEPT, clock=clock)
        self._users: Remembered[HubUser] = Remembered(seconds=USER_SECONDS, most=_MOST_KEPT, clock=clock)

    async def search(self, wanted: ModelSearch, token: Secret | None) -> Sequence[ModelCard]:
        """Models, trending first: see `domain.ports.Hub`."""
        if not 1 <= wanted.limit <= MAX_MODELS:
            raise InvalidRequest(f"[limit] must be from 1 to {MAX_MODELS}, not {wanted.limit}.")
        return await self._searches.get((wanted, digest(token)), lambda: self._search(wanted, token))

    async def model(self, name: str, token: Secret | None) -> ModelCard:
        """One model: see `domain.ports.Hub`."""
        repository = repository_of(name)
        return await self._cards.get((repository, digest(token)), lambda: self._model(repository, token))

    async def whoami(self, token: Secret) -> HubUser:
        """The owner of a token: see `domain.ports.Hub`."""
        return await self._users.get(digest(token), lambda: self._whoami(token))

    async def deployments(self, namespace: str | None, token: Secret) -> Sequence[Deployment]:
        """Inference Endpoints: see `domain.ports.Hub`."""
        if namespace is not None:
            return await self._deployments.list(namespace, token)
        user = await self.whoami(token)
        found: list[Deployment] = []
        refusals: list[UpstreamRefused] = []
        namespaces = (user.name, *user.organisations)
        for name in namespaces:
            try:
                found += await self._deployments.list(name, token)
            except UpstreamRefused as error:
                if error.status not in {401, 403, 404}:
                    raise
                refusals.append(error)
        if len(refusals) == len(namespaces):
            raise refusals[0]
        return found

    async def resume(self, namespace: str, name: str, token: Secret) -> Deployment:
        """Wake a paused Inference Endpoint: see `domain.ports.Hub`."""
        return await self._deployments.resume(namespace, name, token)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def _search(self, wanted: ModelSearch, token: Secret | None) -> Sequence[ModelCard]:
        rows: Sequence[tuple[str, str] | None] = _SEARCHES[wanted.task] if wanted.task else (None,)
        replies = await asyncio.gather(*(self._page(wanted, row, token) for row in rows))
        cards = {card.name: card for reply in replies for entry in reply if (card := read_card(entry))}
        fitting = (card for card in cards.values() if _fits(card, wanted))
        ordered = sorted(fitting, key=lambda card: (-(card.trending or 0), -(card.downloads or 0)))
        return ordered[: wanted.limit]

    async def _page(
        self, wanted: ModelSearch, row: tuple[str, str] | None, token: Secret | None
    ) -> list[Any]:
        # What the Hub cannot leave out is left out here, so more is asked for than is wanted.
        thinned = wanted.task is None or wanted.served is False
        query = [("sort", "trendingScore"), ("limit", str(MAX_MODELS if thinned else wanted.limit))]
        query += [row] if row else []
        query += [("search", wanted.text)] if wanted.text else []
        query += [("inference", "warm")] if wanted.served else []
        query += [("expand[]", field) for field in _FIELDS]
        reply = await self._site.ask("/api/models", token, about="models", query=query)
        return reply if isinstance(reply, list) else []

    async def _model(self, repository: str, token: Secret | None) -> ModelCard:
        query = [("expand[]", field) for field in (*_FIELDS, "siblings")]
        try:
            entry = await self._site.ask(
                f"/api/models/{repository}", token, about=f"model [{repository}]", query=query
            )
        except UpstreamRefused as error:
            if error.cause is not Cause.MODEL_NOT_FOUND:
                raise
            raise NotFound(error.message, remedy=error.remedy, cause=error.cause) from error
        card = read_card(entry)
        if card is None:
            raise NotFound(f"The Hub's reply names no model [{repository}].", cause=Cause.MODEL_NOT_FOUND)
        return await self._measured(card, read_files(entry), token)

    async def _measured(self, card: ModelCard, names: frozenset[str], token: Secret | None) -> ModelCard:
        """A card with what the model's own small files tell; those that cannot be read tell nothing."""
        if not card.tasks:
            return card
        config, sentence_bert, modules = await asyncio.gather(
            *(
                self._file(card, name, names, token)
                for name in ("config.json", "sentence_bert_config.json", "modules.json")
            )
        )
        length = read_length(config, sentence_bert) or card.max_input_tokens
        if Task.TEXT_EMBEDDING not in card.tasks:
            return replace(card, max_input_tokens=length)
        folder = dense_folder(modules)
        dense = await self._file(card, f"{folder}/config.json", names, token) if folder else None
        dimensions = None if folder and dense is None else read_dimensions(config, dense)
        return replace(card, max_input_tokens=length, dimensions=dimensions)

    async def _file(self, card: ModelCard, name: str, names: frozenset[str], token: Secret | None) -> Any:
        if name not in names:
            return None
        path = f"/{card.name}/raw/{card.revision or 'main'}/{name}"
        try:
            return await self._site.ask(path, token, about=f"file [{name}]", window="files")
        except HubgateError:
            return None

    async def _whoami(self, token: Secret) -> HubUser:
        return read_user(
            await self._site.ask("/api/whoami-v2", token, about="the token's owner", window="whoami")
        )


def open_hub(settings: Settings) -> HubClient:
    """The Hub as the environment says. Does no I/O."""
    client = PooledClient(AddressRule(), max_reply_bytes=_REPLY_BYTES)
    deployments = Deployments(client, url=settings.endpoints_api_url, offline=settings.hf_offline)
    return HubClient(client, deployments, hf_endpoint=settings.hf_endpoint, offline=settings.hf_offline)


def repository_of(text: str) -> str:
    """The repository that is named, or linked to, as org/name.

    Raises:
        InvalidRequest: none is.
    """
    name = _LINK.sub("", text.strip()).strip("/")
    if name != text.strip("/ "):
        name = "/".join(name.split("/")[:2])  # a link goes on to a file or a branch
    if not _REPOSITORY.fullmatch(name):
        raise InvalidRequest(
            f"[{text[:200]}] is no name of a model.", remedy="Name it as on the Hub: org/name."
        )
    return name


def _fits(card: ModelCard, wanted: ModelSearch) -> bool:
    if wanted.served is not None and card.served is not wanted.served:
        return False
    return wanted.task in card.tasks if wanted.task else bool(card.tasks)
