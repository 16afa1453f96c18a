"""Hugging Face's Inference Endpoints: listing, matching to a URL, resuming, and facts for a registration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from lookalikes.deployments import TOKEN, DeploymentsApi, deployment, running_deployments
from lookalikes.hub_api import TOKEN as ADA
from lookalikes.hub_api import HubApi

from hubgate.domain.endpoint import Endpoint, Engine, Facts, Source, Target, Task
from hubgate.domain.errors import (
    Cause,
    HubgateError,
    InvalidEndpoint,
    InvalidRequest,
    UpstreamError,
    UpstreamRefused,
)
from hubgate.domain.hub import DeploymentState
from hubgate.domain.secret import Secret
from hubgate.features.deployments.hub import InferenceEndpoints
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.pool import PooledClient
from hubgate.upstreams.hub.client import HubClient
from hubgate.upstreams.hub.deployments import (
    Deployments,
    check_model,
    deployment_facts,
    find_deployment,
    merge_facts,
    read_deployment,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

OWNER = Secret(TOKEN)
URL = "https://x1y2z3.us-east-1.aws.endpoints.huggingface.cloud"
MODEL = "intfloat/e5-small-v2"


@pytest.fixture
def site() -> Iterator[DeploymentsApi]:
    with running_deployments() as site:
        yield site


@pytest.fixture
async def client() -> AsyncIterator[PooledClient]:
    client = PooledClient(AddressRule())
    yield client
    await client.close()


@pytest.fixture
def deployments(client: PooledClient, site: DeploymentsApi) -> Deployments:
    return Deployments(client, url=site.url + "/v2/")


def endpoint(**fields: Any) -> Endpoint:
    return Endpoint(
        **{
            "name": "e",
            "task": Task.TEXT_EMBEDDING,
            "source": Source.DEDICATED,
            "url": URL,
            "namespace": "acme",
        }
        | fields
    )


class TestList:
    async def test_endpoints_of_a_namespace_are_sorted_by_name(
        self, deployments: Deployments, site: DeploymentsApi
    ) -> None:
        site.items["acme"] = [deployment("b", state="paused"), deployment("a", url=URL)]
        one, other = await deployments.list("acme", OWNER)
        assert (one.name, one.namespace, one.url, one.repository) == ("a", "acme", URL, MODEL)
        assert (one.task, one.engine, one.image) == ("sentence-embeddings", Engine.TEI, "hub/tei:1.9")
        assert (one.hardware, one.region, one.min_replicas) == ("intel-spr x2", "aws us-east-1", 0)
        assert (one.access, one.price_per_hour) == ("authenticated", None)
        assert (one.running, one.paused, one.asleep) == (True, False, False)
        assert (other.running, other.paused, other.url) == (False, True, None)

    async def test_all_visible_endpoints_are_listed_without_namespace(
        self, client: PooledClient, site: DeploymentsApi, hub_site: HubApi
    ) -> None:
        site.items["acme"] = [deployment("theirs")]
        deployments = Deployments(client, url=site.url + "/v2")
        hub = HubClient(client, deployments, hf_endpoint=hub_site.url)
        listed = await hub.deployments(None, Secret(ADA))  # ada herself has none: 404
        assert [one.name for one in listed] == ["theirs"]
        assert [one.name for one in await hub.deployments("acme", Secret(ADA))] == ["theirs"]
        del site.items["acme"]
        with pytest.raises(UpstreamRefused, match="Endpoints of \\[ada\\]"):
            await hub.deployments(None, Secret(ADA))
        site.fail("failing")
        with pytest.raises(UpstreamRefused, match="Inference Endpoints failed"):
            await hub.deployments(None, Secret(ADA))

    @pytest.mark.parametrize(
        ("fault", "cause", "told"),
        [
            ("wrong-token", Cause.WRONG_TOKEN, "rejected the token"),
            ("no-right", Cause.TOKEN_LACKS_SCOPE, "has no permission to list Inference Endpoints of [acme]"),
            ("absent", Cause.MODEL_NOT_FOUND, "did not find Inference Endpoints of [acme]"),
            ("gone", Cause.OLD_ADDRESS, "HUBGATE_ENDPOINTS_API_URL"),
            ("limited", Cause.OVERLOADED, "has rate limited"),
            ("failing", Cause.UPSTREAM_FAILED, "Inference Endpoints failed"),
            ("page", Cause.NOT_AN_API, "a web page"),
        ],
    )
    async def test_each_list_error_has_its_cause(
        self, deployments: Deployments, site: DeploymentsApi, fault: str, cause: Cause, told: str
    ) -> None:
        site.fail(fault)
        with pytest.raises(HubgateError) as caught:
            await deployments.list("acme", OWNER)
        assert caught.value.cause is cause
        assert told in str(caught.value)

    async def test_unexpected_json_lists_nothing(
        self, deployments: Deployments, site: DeploymentsApi
    ) -> None:
        site.fail("other-json")
        assert await deployments.list("acme", OWNER) == []

    @pytest.mark.parametrize("namespace", ["", "..", "a/b", "a?b"])
    async def test_invalid_namespace_is_not_requested(
        self, deployments: Deployments, site: DeploymentsApi, namespace: str
    ) -> None:
        with pytest.raises(InvalidRequest):
            await deployments.list(namespace, OWNER)
        assert site.asked == []


class TestResume:
    async def test_resume_wakes_a_paused_endpoint_and_leaves_a_running_one(
        self, deployments: Deployments, site: DeploymentsApi
    ) -> None:
        site.items["acme"] = [deployment("a", state="paused"), deployment("b", url=URL)]
        assert (
            await InferenceEndpoints(deployments).resume("acme", "a", OWNER)
        ).state is DeploymentState.INITIALIZING
        assert (
            await InferenceEndpoints(deployments).resume("acme", "b", OWNER)
        ).state is DeploymentState.RUNNING
        with pytest.raises(UpstreamRefused, match=r"has no Inference Endpoint \[c\]"):
            await InferenceEndpoints(deployments).resume("acme", "c", OWNER)

    async def test_reply_without_a_state_is_an_unknown_state(
        self, deployments: Deployments, site: DeploymentsApi
    ) -> None:
        site.fail("other-json")
        resumed = await InferenceEndpoints(deployments).resume("acme", "a", OWNER)
        assert (resumed.name, resumed.state) == ("a", DeploymentState.UNKNOWN)


class TestReading:
    @pytest.mark.parametrize(
        ("image", "engine"),
        [
            ({"tei": {"url": "x"}}, Engine.TEI),
            ({"tgi": {}}, Engine.TGI),
            ({"vLLM": {}}, Engine.VLLM),
            ({"sGLang": {}}, Engine.SGLANG),
            ({"llamacpp": {}}, Engine.LLAMACPP),
            ({"hfServe": {}}, Engine.TRANSFORMERS),
            ({"huggingface": {}}, Engine.TOOLKIT),
            ({"custom": {"url": "ghcr.io/huggingface/text-embeddings-inference:cpu-1.9"}}, Engine.TEI),
            ({"custom": {"url": "michaelf34/infinity:0.0.77"}}, Engine.INFINITY),
            ({"custom": {"url": "vllm/vllm-openai:v0.32"}}, Engine.VLLM),
            ({"custom": {"url": "acme/own:1"}}, None),
            ({"custom": {}}, None),
            ({}, None),
        ],
    )
    def test_image_identifies_the_engine(self, image: dict[str, Any], engine: Engine | None) -> None:
        assert read_deployment(deployment("a", image=image), "acme").engine is engine

    def test_missing_or_unexpected_fields_are_unknown(self) -> None:
        bare = read_deployment({"status": {"state": "dreaming"}, "model": 3}, "acme")
        assert (bare.name, bare.state, bare.repository, bare.hardware) == (
            "",
            DeploymentState.UNKNOWN,
            None,
            None,
        )
        priced = read_deployment({"compute": {"pricePerHour": 0.067}}, "acme")
        assert priced.price_per_hour == 0.067
        asleep = read_deployment(deployment("a", state="scaledToZero"), "acme")
        assert (asleep.asleep, asleep.running) == (True, False)


@pytest.mark.parametrize(
    "pasted",
    [
        URL,
        URL + "/",
        URL + "//",
        URL + "/v1",
        URL + "/v1/embeddings",
        URL.upper().replace("HTTPS", "https"),
        URL.replace("https", "http"),
        f" {URL}:443/",
    ],
)
def test_pasted_url_is_matched_in_any_form(pasted: str) -> None:
    listed = [
        read_deployment(deployment("other", url=URL.replace("x1", "w1")), "acme"),
        read_deployment(deployment("asleep", state="paused"), "acme"),
        read_deployment(deployment("it", url=URL + "/"), "acme"),
    ]
    found = find_deployment(listed, pasted)
    assert found is not None
    assert found.name == "it"
    assert find_deployment(listed, URL + "/own/path") is None


class TestFacts:
    async def test_url_yields_repository_engine_and_revision(
        self, deployments: Deployments, site: DeploymentsApi
    ) -> None:
        site.items["acme"] = [deployment("a", url=URL)]
        facts = await deployment_facts(deployments, Target(endpoint(model="Intfloat/E5-small-v2"), OWNER))
        assert (facts.engine, facts.model) == (Engine.TEI, MODEL)
        assert facts.revision == "ffb93f3bd4047442299a41ebb6fa998a38507c52"
        assert facts.warnings == ()

    async def test_lookup_is_skipped_without_namespace_or_token(
        self, deployments: Deployments, site: DeploymentsApi
    ) -> None:
        assert await deployment_facts(deployments, Target(endpoint(namespace=None), OWNER)) == Facts()
        without_token = await deployment_facts(deployments, Target(endpoint()))
        assert "without a token" in without_token.warnings[0]
        assert site.asked == []

    @pytest.mark.parametrize("fault", ["wrong-token", "no-right", "limited", "failing", "page"])
    async def test_unavailable_list_gives_a_warning(
        self, deployments: Deployments, site: DeploymentsApi, fault: str
    ) -> None:
        site.fail(fault)
        facts = await deployment_facts(deployments, Target(endpoint(), OWNER))
        assert (facts.engine, facts.model) == (None, None)
        assert "could not be listed" in facts.warnings[0]
        assert TOKEN not in facts.warnings[0]

    async def test_missing_namespace_is_rejected(self, deployments: Deployments) -> None:
        with pytest.raises(InvalidEndpoint, match=r"\[nobody\]"):
            await deployment_facts(deployments, Target(endpoint(namespace="nobody"), OWNER))

    async def test_url_of_another_namespace_is_rejected_with_alternatives(
        self, deployments: Deployments, site: DeploymentsApi
    ) -> None:
        with pytest.raises(InvalidEndpoint, match="has no Inference Endpoints"):
            await deployment_facts(deployments, Target(endpoint(), OWNER))
        site.items["acme"] = [deployment("idle", state="paused")]
        with pytest.raises(InvalidEndpoint, match="Without a URL, because they are paused") as caught:
            await deployment_facts(deployments, Target(endpoint(), OWNER))
        assert "It has" not in caught.value.message
        site.items["acme"] += [deployment("up", url="https://other.example")]
        with pytest.raises(InvalidEndpoint) as caught:
            await deployment_facts(deployments, Target(endpoint(), OWNER))
        assert "up (https://other.example)" in caught.value.message
        assert "idle" in caught.value.message
        assert "resume" in caught.value.remedy

    @pytest.mark.parametrize(
        ("state", "cause", "told"),
        [
            ("paused", Cause.PAUSED, "is paused. It was idle."),
            ("failed", Cause.UPSTREAM_FAILED, "has failed. It was idle."),
        ],
    )
    async def test_paused_or_failed_endpoint_is_reported_with_its_message(
        self, deployments: Deployments, site: DeploymentsApi, state: str, cause: Cause, told: str
    ) -> None:
        site.items["acme"] = [deployment("a", url=URL, state=state, message="It was idle.")]
        with pytest.raises(UpstreamError) as caught:
            await deployment_facts(deployments, Target(endpoint(), OWNER))
        assert caught.value.cause is cause
        assert told in caught.value.message

    async def test_failed_update_gives_a_warning(
        self, deployments: Deployments, site: DeploymentsApi
    ) -> None:
        site.items["acme"] = [deployment("a", url=URL, state="updateFailed", message="Out of memory")]
        facts = await deployment_facts(deployments, Target(endpoint(), OWNER))
        assert facts.warnings == ("Its last update failed; the previous version is running. Out of memory",)

    async def test_model_mismatch_is_rejected_with_both_names(
        self, deployments: Deployments, site: DeploymentsApi
    ) -> None:
        site.items["acme"] = [deployment("a", url=URL)]
        with pytest.raises(InvalidEndpoint) as caught:
            await deployment_facts(deployments, Target(endpoint(model="BAAI/bge-m3"), OWNER))
        assert f"[{MODEL}]" in caught.value.message
        assert "[BAAI/bge-m3]" in caught.value.message
        chat = endpoint(model="any name will do", task=Task.CHAT_COMPLETION)
        assert (await deployment_facts(deployments, Target(chat, OWNER))).model == MODEL


class TestMerging:
    @pytest.mark.parametrize("reported", [None, "/repository", "bge", "a/b/c", "./model"])
    def test_reported_name_that_is_not_a_repository_is_ignored(self, reported: str | None) -> None:
        check_model(endpoint(model="BAAI/bge-m3"), reported, "the server")

    def test_repository_reported_by_server_must_match_configured_one(self) -> None:
        with pytest.raises(InvalidEndpoint, match="according to the server"):
            check_model(endpoint(model="BAAI/bge-m3"), MODEL, "the server")
        check_model(endpoint(), MODEL, "the server")

    def test_server_facts_take_precedence_and_gaps_are_filled(self) -> None:
        told = Facts(engine=Engine.TEI, model=MODEL, revision="r", warnings=("b",))
        own = Facts(engine=Engine.VLLM, model="own/model", revision="s", warnings=("a",))
        assert merge_facts(own, told) == Facts(
            engine=Engine.VLLM, model="own/model", revision="s", warnings=("a", "b")
        )
        silent = merge_facts(Facts(model="/repository"), told)
        assert (silent.engine, silent.model, silent.revision) == (Engine.TEI, MODEL, "r")
        assert merge_facts(Facts(model="/repository"), Facts()).model == "/repository"
