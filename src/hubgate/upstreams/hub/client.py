"""The Hub's client: searches models, fetches their metadata, and looks up the owner of a token."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hubgate.domain.endpoint import Task
from hubgate.domain.errors import Cause, HubgateError, InvalidRequest, NotFound, UpstreamRefused
from hubgate.domain.hub import MAX_MODELS, Deployment, HubUser, ModelCard, ModelPrompts, ModelSearch
from hubgate.domain.ports import Clock
from hubgate.domain.secret import Secret
from hubgate.settings import Settings
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.messages import HttpClient
from hubgate.upstreams.http.pool import PooledClient
from hubgate.upstreams.hub.cards import (
    CHAT_TAG,
    SPARSE_TAG,
    is_matryoshka,
    module_folder,
    read_card,
    read_dimensions,
    read_files,
    read_length,
    read_prompts,
    read_shorter_dimensions,
    read_user,
)
from hubgate.upstreams.hub.deployments import Deployments
from hubgate.upstreams.hub.errors import HUB_ERROR_RULES
from hubgate.upstreams.hub.metadata import with_metadata
from hubgate.upstreams.hub.site import HubSite, token_digest
from hubgate.upstreams.hub.ttl_cache import TtlCache
from hubgate.upstreams.json_values import text_of

HUB = "https://huggingface.co"
SEARCH_SECONDS = 300.0
CARD_SECONDS = 600.0
USER_SECONDS = 600.0
_MAX_CACHED = 256
_MAX_REPLY_BYTES = 16 << 20

_SEARCHES: dict[Task, tuple[tuple[str, str], ...]] = {
    Task.TEXT_EMBEDDING: (("pipeline_tag", "feature-extraction"), ("pipeline_tag", "sentence-similarity")),
    Task.SPARSE_EMBEDDING: (("filter", SPARSE_TAG),),
    Task.CHAT_COMPLETION: (("filter", CHAT_TAG),),
}
"""The filters of tasks for which the pipeline tag is not enough; the results of several filters are merged."""
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
_CARD_FIELDS = ("cardData", "model-index", "siblings")
"""Of a single model: they are long."""
_CONFIGURATION = ("config.json", "sentence_bert_config.json", "modules.json")
_README = "README.md"
_PROMPTS = "config_sentence_transformers.json"
_POOLING = "1_Pooling/config.json"
_REPOSITORY = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)?", re.ASCII)
_LINK = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)


class HubClient:
    """Implements `domain.ports.Hub`.

    Args:
        client: sends the requests; `close` closes it.
        deployments: the API of Inference Endpoints.
        hf_endpoint: the Hub's URL, if it is not the default.
        offline: send no requests.
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
        self.inference_endpoints = deployments
        self._site = HubSite(
            client,
            hf_endpoint or HUB,
            name="The Hub",
            setting="HF_ENDPOINT",
            error_rules=HUB_ERROR_RULES,
            offline=offline,
            clock=clock,
        )
        self._searches: TtlCache[Sequence[ModelCard]] = TtlCache(
            seconds=SEARCH_SECONDS, max_entries=_MAX_CACHED, clock=clock
        )
        self._cards: TtlCache[ModelCard] = TtlCache(
            seconds=CARD_SECONDS, max_entries=_MAX_CACHED, clock=clock
        )
        self._users: TtlCache[HubUser] = TtlCache(seconds=USER_SECONDS, max_entries=_MAX_CACHED, clock=clock)

    async def search(self, wanted: ModelSearch, token: Secret | None) -> Sequence[ModelCard]:
        if not 1 <= wanted.limit <= MAX_MODELS:
            raise InvalidRequest(f"[limit] must be from 1 to {MAX_MODELS}, not {wanted.limit}.")
        return await self._searches.get((wanted, token_digest(token)), lambda: self._search(wanted, token))

    async def model(self, name: str, token: Secret | None) -> ModelCard:
        repository = repository_of(name)
        return await self._cards.get(
            (repository, token_digest(token)), lambda: self._model(repository, token)
        )

    async def whoami(self, token: Secret) -> HubUser:
        return await self._users.get(token_digest(token), lambda: self._whoami(token))

    async def deployments(self, namespace: str | None, token: Secret) -> Sequence[Deployment]:
        if namespace is not None:
            return await self.inference_endpoints.list(namespace, token)
        user = await self.whoami(token)
        found: list[Deployment] = []
        refusals: list[UpstreamRefused] = []
        namespaces = (user.name, *user.organisations)
        for name in namespaces:
            try:
                found += await self.inference_endpoints.list(name, token)
            except UpstreamRefused as error:
                if error.status not in {401, 403, 404}:
                    raise
                refusals.append(error)
        if len(refusals) == len(namespaces):
            raise refusals[0]
        return found

    async def close(self) -> None:
        await self._client.close()

    async def _search(self, wanted: ModelSearch, token: Secret | None) -> Sequence[ModelCard]:
        filters: Sequence[tuple[str, str] | None] = (None,)
        if wanted.task:
            filters = _SEARCHES.get(wanted.task, (("pipeline_tag", wanted.task.pipeline_tag),))
        replies = await asyncio.gather(*(self._page(wanted, one, token) for one in filters))
        cards = {card.name: card for reply in replies for entry in reply if (card := read_card(entry))}
        matching = (card for card in cards.values() if _matches(card, wanted))
        ordered = sorted(matching, key=lambda card: (-(card.trending or 0), -(card.downloads or 0)))
        return ordered[: wanted.limit]

    async def _page(
        self, wanted: ModelSearch, task_filter: tuple[str, str] | None, token: Secret | None
    ) -> list[Any]:
        # The Hub has no query for some filters: then more models are requested, and `_matches` filters them.
        is_filtered_here = wanted.task is None or wanted.served is False
        limit = MAX_MODELS if is_filtered_here else wanted.limit
        query = [("sort", "trendingScore"), ("limit", str(limit))]
        query += [task_filter] if task_filter else []
        query += [("search", wanted.text)] if wanted.text else []
        query += [("inference", "warm")] if wanted.served else []
        query += [("expand[]", field) for field in _FIELDS]
        reply = await self._site.fetch("/api/models", token, about="models", query=query)
        return reply if isinstance(reply, list) else []

    async def _model(self, repository: str, token: Secret | None) -> ModelCard:
        query = [("expand[]", field) for field in (*_FIELDS, *_CARD_FIELDS)]
        try:
            entry = await self._site.fetch(
                f"/api/models/{repository}", token, about=f"model [{repository}]", query=query
            )
        except UpstreamRefused as error:
            if error.cause is not Cause.MODEL_NOT_FOUND:
                raise
            raise NotFound(error.message, remedy=error.remedy, cause=error.cause) from error
        card = read_card(entry)
        if card is None:
            raise NotFound(
                f"The Hub's reply does not contain the model [{repository}].", cause=Cause.MODEL_NOT_FOUND
            )
        names = read_files(entry)
        if is_matryoshka(entry) and _README in names:
            card = replace(card, shorter_dimensions=await self._shorter_dimensions(card, token))
        return await self._add_facts(with_metadata(card, entry), names, token)

    async def _shorter_dimensions(self, card: ModelCard, token: Secret | None) -> tuple[int, ...]:
        path = f"/{card.name}/raw/{card.revision or 'main'}/{_README}"
        try:
            readme = await self._site.fetch_text(path, token, about=f"file [{_README}]", window="files")
        except HubgateError:
            return ()
        return read_shorter_dimensions(readme)

    async def _add_facts(self, card: ModelCard, names: frozenset[str], token: Secret | None) -> ModelCard:
        """Add what only the model's configuration files contain, as far as they can be read."""
        config, sentence_bert, modules = await asyncio.gather(
            *(self._file(card, name, names, token) for name in _CONFIGURATION)
        )
        prompts = await self._prompts(card, modules, names, token)
        card = replace(card, prompts=prompts, model_type=text_of(config, "model_type"))
        if not card.tasks:
            return card
        length = read_length(config, sentence_bert) or card.max_input_tokens
        if Task.TEXT_EMBEDDING not in card.tasks:
            return replace(card, max_input_tokens=length)
        folder = module_folder(modules, "Dense")
        dense = await self._file(card, f"{folder}/config.json", names, token) if folder else None
        dimensions = None if folder and dense is None else read_dimensions(config, dense)
        return replace(card, max_input_tokens=length, dimensions=dimensions)

    async def _prompts(
        self, card: ModelCard, modules: Any, names: frozenset[str], token: Secret | None
    ) -> ModelPrompts | None:
        """The model's prompts; empty if it has no such file, `None` if its file cannot be read."""
        folder = module_folder(modules, "Pooling")
        pooling_file = f"{folder}/config.json" if folder else _POOLING
        prompts, pooling = await asyncio.gather(
            *(self._file(card, name, names, token) for name in (_PROMPTS, pooling_file))
        )
        return None if prompts is None and _PROMPTS in names else read_prompts(prompts, pooling)

    async def _file(self, card: ModelCard, name: str, names: frozenset[str], token: Secret | None) -> Any:
        if name not in names:
            return None
        path = f"/{card.name}/raw/{card.revision or 'main'}/{name}"
        try:
            return await self._site.fetch(path, token, about=f"file [{name}]", window="files")
        except HubgateError:
            return None

    async def _whoami(self, token: Secret) -> HubUser:
        return read_user(
            await self._site.fetch("/api/whoami-v2", token, about="the token's owner", window="whoami")
        )


def open_hub(settings: Settings) -> HubClient:
    """The Hub's client, configured by the settings. Does no I/O."""
    client = PooledClient(AddressRule(), max_reply_bytes=_MAX_REPLY_BYTES)
    deployments = Deployments(
        client,
        url=settings.endpoints_api_url,
        catalog_url=settings.endpoints_catalog_url,
        offline=settings.hf_offline,
    )
    return HubClient(client, deployments, hf_endpoint=settings.hf_endpoint, offline=settings.hf_offline)


def repository_of(text: str) -> str:
    """The repository (org/name) from its name or a link to it.

    Raises:
        InvalidRequest: the text is neither.
    """
    name = _LINK.sub("", text.strip()).strip("/")
    if name != text.strip("/ "):
        name = "/".join(name.split("/")[:2])  # a link may continue to a file or branch
    if not _REPOSITORY.fullmatch(name):
        raise InvalidRequest(
            f"[{text[:200]}] is not a valid model name.", remedy="Use its name on the Hub: org/name."
        )
    return name


def _matches(card: ModelCard, wanted: ModelSearch) -> bool:
    if wanted.served is not None and card.served is not wanted.served:
        return False
    return wanted.task in card.tasks if wanted.task else bool(card.tasks)
