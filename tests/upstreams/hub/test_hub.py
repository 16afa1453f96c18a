"""Searching models on the Hub, reading model cards, and identifying a token's owner, over a socket."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes.hub_api import MODELS, READ_TOKEN, SHA, TOKEN, HubApi
from lookalikes.model import Answer

from hubgate.domain.endpoint import Task
from hubgate.domain.errors import (
    Cause,
    HubgateError,
    InvalidRequest,
    NotFound,
    UpstreamRefused,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from hubgate.domain.hub import ModelSearch, ProviderMapping
from hubgate.domain.secret import Secret
from hubgate.settings import Settings
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.pool import PooledClient
from hubgate.upstreams.hub.cards import read_card, read_length, read_user
from hubgate.upstreams.hub.client import HubClient, open_hub, repository_of
from hubgate.upstreams.hub.deployments import Deployments
from hubgate.upstreams.hub.ttl_cache import TtlCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OWNER = Secret(TOKEN)
READER = Secret(READ_TOKEN)
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


class Watch:
    """A manually advanced clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
async def hub(hub_site: HubApi, watch: Watch) -> AsyncIterator[HubClient]:
    client = PooledClient(AddressRule())
    hub = HubClient(
        client, Deployments(client, url=hub_site.url), hf_endpoint=hub_site.url + "/", clock=watch
    )
    yield hub
    await hub.close()


async def names(hub: HubClient, token: Secret | None = None, **wanted: Any) -> list[str]:
    return [card.name for card in await hub.search(ModelSearch(**wanted), token)]


async def refused(hub: HubClient, token: Secret | None = None) -> HubgateError:
    with pytest.raises(HubgateError) as caught:
        await hub.search(ModelSearch(), token)
    return caught.value


class TestSearch:
    async def test_embedding_models_with_either_tag_are_listed_trending_first(self, hub: HubClient) -> None:
        assert await names(hub, task=Task.TEXT_EMBEDDING) == ["BAAI/bge-m3", MINILM, "intfloat/e5-small-v2"]
        assert await names(hub, task=Task.TEXT_EMBEDDING, limit=2) == ["BAAI/bge-m3", MINILM]

    @pytest.mark.parametrize(
        ("task", "found"),
        [
            (Task.SPARSE_EMBEDDING, ["org/splade"]),
            (Task.RERANK, ["org/reranker"]),
            (Task.COMPLETION, ["meta/llama", "google/flan-t5"]),
            (Task.CHAT_COMPLETION, ["meta/llama", "org/seer"]),
        ],
    )
    async def test_search_by_task_finds_matching_models(
        self, hub: HubClient, task: Task, found: list[str]
    ) -> None:
        assert await names(hub, task=task) == found

    async def test_search_without_task_finds_only_models_of_supported_tasks(self, hub: HubClient) -> None:
        found = await names(hub, limit=4)
        assert found == ["BAAI/bge-m3", "meta/llama", MINILM, "org/splade"]

    async def test_search_filters_by_text_and_served_status(self, hub: HubClient) -> None:
        assert await names(hub, text="MINI") == [MINILM]
        assert await names(hub, served=True) == ["meta/llama", MINILM]
        assert await names(hub, task=Task.TEXT_EMBEDDING, served=False) == [
            "BAAI/bge-m3",
            "intfloat/e5-small-v2",
        ]

    async def test_private_models_are_found_with_an_authorized_token(self, hub: HubClient) -> None:
        assert await names(hub, text="secret") == []
        assert await names(hub, OWNER, text="secret") == ["org/secret"]

    async def test_card_reports_providers_and_only_facts_from_the_hub(self, hub: HubClient) -> None:
        cards = {card.name: card for card in await hub.search(ModelSearch(), None)}
        llama, e5, minilm = cards["meta/llama"], cards["intfloat/e5-small-v2"], cards[MINILM]
        assert llama.served_by == (
            ProviderMapping(provider="groq", task="conversational", status="live", provider_model="llama-8b"),
        )
        assert (llama.gated, llama.parameters, llama.max_input_tokens) == (True, 8_000_000_000, 131_072)
        assert llama.tasks == (Task.COMPLETION, Task.CHAT_COMPLETION)
        assert (minilm.served, e5.served) == (True, False)  # together's mapping is in error
        assert (e5.parameters, e5.license, e5.revision) == (33_360_000, "apache-2.0", SHA)
        assert (e5.dimensions, e5.max_input_tokens, e5.gated) == (None, None, False)

    @pytest.mark.parametrize("limit", [0, 101])
    async def test_limit_out_of_range_is_rejected(self, hub: HubClient, limit: int) -> None:
        with pytest.raises(InvalidRequest, match="from 1 to 100"):
            await hub.search(ModelSearch(limit=limit), None)

    async def test_search_results_are_cached_for_five_minutes(
        self, hub: HubClient, hub_site: HubApi, watch: Watch
    ) -> None:
        for _ in range(3):
            await names(hub, task=Task.RERANK)
        assert len(hub_site.asked) == 1
        await names(hub, OWNER, task=Task.RERANK)
        assert len(hub_site.asked) == 2, "what a token sees is for that token"
        watch.now += 301
        await names(hub, task=Task.RERANK)
        assert len(hub_site.asked) == 3

    async def test_only_the_given_token_is_sent(
        self, hub: HubClient, hub_site: HubApi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
        await names(hub)
        await names(hub, OWNER)
        assert [seen.token for seen in hub_site.asked] == [None, TOKEN]


class TestModel:
    async def test_dimensions_and_length_come_from_model_files(self, hub: HubClient) -> None:
        card = await hub.model(MINILM, None)
        assert (card.dimensions, card.max_input_tokens, card.served) == (384, 256, True)

    async def test_dense_layer_sets_dimensions_and_padding_is_not_a_position(self, hub: HubClient) -> None:
        card = await hub.model("BAAI/bge-m3", None)
        assert (card.dimensions, card.max_input_tokens) == (512, 512)

    async def test_facts_missing_from_files_are_not_guessed(self, hub: HubClient) -> None:
        reranker = await hub.model("org/reranker", None)
        assert (reranker.dimensions, reranker.max_input_tokens) == (None, 512)
        secret = await hub.model("org/secret", OWNER)
        assert (secret.private, secret.dimensions, secret.max_input_tokens) == (True, None, None)
        painter = await hub.model("org/painter", None)
        assert (painter.tasks, painter.dimensions) == ((), None)

    async def test_card_is_returned_when_files_are_unavailable(
        self, hub: HubClient, hub_site: HubApi
    ) -> None:
        hub_site.fail("limited", only="/raw/")
        card = await hub.model(MINILM, None)
        assert (card.name, card.dimensions, card.max_input_tokens) == (MINILM, None, None)
        assert await names(hub, task=Task.RERANK) == ["org/reranker"], "the limit of files is not the API's"

    async def test_card_is_cached_for_ten_minutes(
        self, hub: HubClient, hub_site: HubApi, watch: Watch
    ) -> None:
        await hub.model(MINILM, None)
        asked = len(hub_site.asked)
        watch.now += 599
        await hub.model(f"https://huggingface.co/{MINILM}/tree/main", None)
        assert len(hub_site.asked) == asked
        watch.now += 2
        await hub.model(MINILM, None)
        assert len(hub_site.asked) == 2 * asked

    @pytest.mark.parametrize("name", ["org/none", "org/secret"])
    async def test_missing_model_is_not_found(self, hub: HubClient, name: str) -> None:
        with pytest.raises(NotFound, match="or it is private") as caught:
            await hub.model(name, READER)
        assert caught.value.cause is Cause.MODEL_NOT_FOUND

    async def test_gated_model_error_has_a_remedy(self, hub_site: HubApi, hub: HubClient) -> None:
        hub_site.reply = lambda seen: _gated(hub_site, seen.path)  # type: ignore[method-assign]
        with pytest.raises(UpstreamRefused, match=r"\[meta/llama\] is gated") as caught:
            await hub.model("meta/llama", None)
        assert caught.value.cause is Cause.GATED_MODEL
        assert "Request access" in caught.value.remedy

    async def test_renamed_model_has_a_distinct_error(self, hub: HubClient, hub_site: HubApi) -> None:
        hub_site.fail("moved")
        with pytest.raises(UpstreamUnreachable, match="it was renamed") as caught:
            await hub.model("gpt2", None)
        assert caught.value.cause is Cause.UPSTREAM_REDIRECTS

    async def test_reply_without_a_model_is_not_found(self, hub: HubClient, hub_site: HubApi) -> None:
        hub_site.fail("other-json")
        with pytest.raises(NotFound):
            await hub.model("a/b", None)


def _gated(hub_site: HubApi, path: str) -> Any:
    return Answer(403, {"error": f"Access to {path} is restricted"}, {"X-Error-Code": "GatedRepo"})


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("org/name", "org/name"),
        (" gpt2 ", "gpt2"),
        ("https://huggingface.co/org/name", "org/name"),
        ("http://www.hf.co/org/name/blob/main/config.json", "org/name"),
    ],
)
def test_model_is_accepted_as_name_or_link(text: str, repository: str) -> None:
    assert repository_of(text) == repository


@pytest.mark.parametrize("text", ["", "../secret", "a/..", "a/b/c", "a b", "a?b", "ä/b", "https://x.org/a/b"])
def test_invalid_model_name_is_never_requested(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a valid model name"):
        repository_of(text)


class TestWhoami:
    async def test_fine_grained_token_reports_its_scopes(self, hub: HubClient, hub_site: HubApi) -> None:
        user = await hub.whoami(OWNER)
        assert (user.name, user.kind, user.organisations) == ("ada", "user", ("acme",))
        assert (user.role, user.token_name) == ("fineGrained", "gate")
        assert user.scopes == ("discussion.write", "inference.endpoints.infer.write", "repo.content.read")
        assert (user.calls_providers, user.calls_endpoints) == (False, True)
        await hub.whoami(OWNER)
        assert len(hub_site.asked) == 1

    async def test_read_token_has_its_owners_permissions(self, hub: HubClient) -> None:
        user = await hub.whoami(READER)
        assert (user.name, user.role, user.scopes) == ("bob", "read", ())
        assert (user.calls_providers, user.calls_endpoints) == (True, True)

    async def test_missing_user_fields_are_unknown(self) -> None:
        user = read_user({"name": "eve"})
        assert (user.role, user.calls_providers, user.organisations) == (None, None, ())

    async def test_wrong_token_is_reported_without_showing_it(self, hub: HubClient) -> None:
        with pytest.raises(UpstreamRefused, match="rejected the token") as caught:
            await hub.whoami(Secret("hf_wrong_and_secret"))
        assert caught.value.cause is Cause.WRONG_TOKEN
        assert "hf_wrong" not in str(caught.value)

    async def test_malformed_token_is_not_sent(self, hub: HubClient, hub_site: HubApi) -> None:
        with pytest.raises(InvalidRequest, match="line breaks or non-ASCII characters") as caught:
            await hub.whoami(Secret("hf_two\r\nlines"))
        assert hub_site.asked == []
        assert "two" not in str(caught.value)


class TestErrors:
    @pytest.mark.parametrize(
        ("fault", "cause", "told"),
        [
            ("wrong-token", Cause.WRONG_TOKEN, "rejected the token"),
            ("no-right", Cause.TOKEN_LACKS_SCOPE, "has no permission to read models"),
            ("absent", Cause.MODEL_NOT_FOUND, "check HF_ENDPOINT"),
            ("gone", Cause.OLD_ADDRESS, "no longer exists at this address"),
            ("limited", Cause.OVERLOADED, "has rate limited the requests"),
            ("failing", Cause.UPSTREAM_FAILED, "Server response (500): Internal Error"),
            ("gateway", Cause.UPSTREAM_FAILED, "(Status 502.)"),
            ("strange", Cause.UPSTREAM_FAILED, "Server response (418): I am a teapot"),
        ],
    )
    async def test_each_hub_error_has_its_cause_and_message(
        self, hub: HubClient, hub_site: HubApi, fault: str, cause: Cause, told: str
    ) -> None:
        hub_site.fail(fault)
        error = await refused(hub, OWNER)
        assert isinstance(error, UpstreamRefused)
        assert error.cause is cause
        assert error.retryable is (fault in {"limited", "failing", "gateway"})
        assert told in str(error)

    @pytest.mark.parametrize("fault", ["wrong-token", "no-right"])
    async def test_missing_token_error_says_that_one_is_required(
        self, hub: HubClient, hub_site: HubApi, fault: str
    ) -> None:
        hub_site.fail(fault)
        error = await refused(hub)
        assert error.cause is Cause.TOKEN_MISSING
        assert "The Hub requires an access token." in error.message

    @pytest.mark.parametrize(
        ("fault", "told"), [("page", "a web page"), ("not-json", "data that is not JSON")]
    )
    async def test_reply_that_is_not_an_api_is_reported(
        self, hub: HubClient, hub_site: HubApi, fault: str, told: str
    ) -> None:
        hub_site.fail(fault)
        error = await refused(hub)
        assert isinstance(error, UpstreamUnreadable)
        assert error.cause is Cause.NOT_AN_API
        assert told in error.message

    async def test_unexpected_json_finds_nothing(self, hub: HubClient, hub_site: HubApi) -> None:
        hub_site.fail("other-json")
        assert await names(hub) == []

    @pytest.mark.parametrize(
        ("address", "cause"),
        [
            ("http://127.0.0.1:9", Cause.CONNECTION_REFUSED),
            ("http://169.254.169.254", Cause.ADDRESS_REFUSED),
            ("mirror.example", Cause.INVALID_ENDPOINT),
            ("http://[", Cause.INVALID_ENDPOINT),
        ],
    )
    async def test_unreachable_hub_error_suggests_typing_values(
        self, tmp_path: Path, address: str, cause: Cause
    ) -> None:
        hub = open_hub(Settings(home=tmp_path, secret_key_file=tmp_path / "key", hf_endpoint=address))
        error = await refused(hub)
        await hub.close()
        assert error.message.startswith("The Hub cannot be reached: ")
        assert "type names, URLs and tasks yourself" in error.remedy
        assert "HF_ENDPOINT" in str(error)
        assert error.cause is cause

    async def test_offline_mode_sends_no_requests(self, hub_site: HubApi, tmp_path: Path) -> None:
        settings = Settings(
            home=tmp_path, secret_key_file=tmp_path / "key", hf_endpoint=hub_site.url, hf_offline=True
        )
        hub = open_hub(settings)
        error = await refused(hub)
        await hub.close()
        assert "HF_HUB_OFFLINE is set" in error.message
        assert hub_site.asked == []


class TestLimits:
    async def test_rate_limited_hub_is_not_queried_until_the_window_ends(
        self, hub: HubClient, hub_site: HubApi, watch: Watch
    ) -> None:
        hub_site.fail("limited")
        assert (await refused(hub)).retry_after == 55
        hub_site.fail(None)
        watch.now += 50
        error = await refused(hub)
        assert (len(hub_site.asked), error.retry_after, error.cause) == (1, 5, Cause.OVERLOADED)
        assert "or with a token" in error.remedy
        assert await names(hub, OWNER, task=Task.RERANK) == ["org/reranker"], (
            "another token has its own limit"
        )
        watch.now += 6
        assert await names(hub, task=Task.RERANK) == ["org/reranker"]

    async def test_exhausted_quota_in_a_reply_stops_requests_before_a_429(
        self, hub: HubClient, hub_site: HubApi
    ) -> None:
        hub_site.fail("last-one")
        assert await names(hub, OWNER) == []
        hub_site.fail(None)
        assert (await _held(hub)).message.endswith(
            "has rate limited requests with this token for 55 seconds."
        )

    async def test_rate_limit_without_retry_time_waits_a_minute(
        self, hub: HubClient, hub_site: HubApi, watch: Watch
    ) -> None:
        hub_site.fail("limited-without-a-word")
        await refused(hub)
        hub_site.fail(None)
        watch.now += 59
        await refused(hub)
        watch.now += 1
        assert await names(hub, limit=1) == ["BAAI/bge-m3"]

    async def test_expired_rate_limits_are_removed(
        self, hub: HubClient, hub_site: HubApi, watch: Watch
    ) -> None:
        hub_site.fail("limited")
        for number in range(1000):
            hub._site._backoffs[str(number), "api"] = watch.now - 1
        await refused(hub)
        assert len(hub._site._backoffs) == 1


async def _held(hub: HubClient) -> HubgateError:
    with pytest.raises(HubgateError) as caught:
        await hub.search(ModelSearch(text="other"), OWNER)
    return caught.value


async def test_cache_is_bounded_and_does_not_store_failures() -> None:
    watch = Watch()
    kept: TtlCache[int] = TtlCache(seconds=10, max_entries=2, clock=watch)
    asked = []

    async def ask(key: int) -> int:
        asked.append(key)
        if key < 0:
            raise NotFound("no")
        return key

    for key in (1, 2, 1, 3, 1, 2):  # 3 drives out 2, which is asked again
        assert await kept.get(key, partial(ask, key)) == key
    assert asked == [1, 2, 3, 2]
    for _ in range(2):
        with pytest.raises(NotFound):
            await kept.get(-1, lambda: ask(-1))
    assert asked[4:] == [-1, -1]


class TestReading:
    @pytest.mark.parametrize("entry", [None, [], {}, {"id": 3}])
    def test_invalid_card_is_none(self, entry: Any) -> None:
        assert read_card(entry) is None

    def test_provider_mapping_with_invalid_entries_is_read_in_part(self) -> None:
        card = read_card({"id": "a/b", "inferenceProviderMapping": {"x": 1, "groq": {}}})
        assert card is not None
        assert card.served_by == (ProviderMapping(provider="groq", task="", status="", provider_model=""),)
        assert read_card({"id": "a/b", "inferenceProviderMapping": [1, {"status": "live"}]}) is not None

    @pytest.mark.parametrize(
        ("config", "sentence_bert", "length"),
        [
            ({"max_position_embeddings": 512}, {"max_seq_length": 256}, 256),
            ({"max_position_embeddings": 128}, {"max_seq_length": 256}, 128),
            ({"model_type": "mpnet", "max_position_embeddings": 514}, None, 512),
            ({"text_config": {"max_position_embeddings": 8192}}, None, 8192),
            ({"n_positions": 1024}, None, 1024),
            ({}, {"max_seq_length": 10**30}, None),
            (None, None, None),
        ],
    )
    def test_length_is_read_from_files(self, config: Any, sentence_bert: Any, length: int | None) -> None:
        assert read_length(config, sentence_bert) == length

    def test_every_model_of_the_lookalike_is_readable(self) -> None:
        assert all(read_card(model) for model in MODELS)
