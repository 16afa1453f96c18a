"""The look-alike of the API for managing Inference Endpoints, driven by Hugging Face's own client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi, InferenceEndpoint
from huggingface_hub.errors import HfHubHTTPError, InferenceEndpointError
from lookalikes import lookalike
from lookalikes.deployments import TOKEN, DeploymentsApi, catalogue_item, running_deployments

if TYPE_CHECKING:
    from collections.abc import Iterator

CPU: dict[str, Any] = {
    "repository": "intfloat/e5-small-v2",
    "framework": "pytorch",
    "task": "sentence-embeddings",
    "accelerator": "cpu",
    "vendor": "aws",
    "region": "us-east-1",
    "instance_type": "intel-spr",
    "instance_size": "x2",
    "custom_image": {"tei": {"url": "ghcr.io/huggingface/text-embeddings-inference:cpu-1.9", "port": 80}},
    "min_replica": 0,
    "scale_to_zero_timeout": 15,
    "namespace": "acme",
    "token": TOKEN,  # the object that comes back forgets the token of its HfApi
}

URL = "https://e5.us-east-1.aws.endpoints.huggingface.cloud"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeploymentsApi]:
    with running_deployments() as site:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "INFERENCE_ENDPOINTS_ENDPOINT", f"{site.url}/v2")
        monkeypatch.setattr(constants, "INFERENCE_CATALOG_ENDPOINT", f"{site.url}/api/v1/catalog")
        yield site


@pytest.fixture
def api(site: DeploymentsApi) -> HfApi:
    return HfApi(endpoint=site.url, token=TOKEN)


def test_endpoint_starts_scales_to_zero_and_pauses(api: HfApi, site: DeploymentsApi) -> None:
    one = api.create_inference_endpoint("e5", **CPU)
    assert _state(one) == ("pending", None)
    site.advance(3)
    assert one.fetch().status == "initializing"
    site.advance(90)
    assert _state(one.fetch()) == ("running", URL)
    site.advance(15 * 60)
    assert _state(one.fetch()) == ("scaledToZero", URL)
    assert site.one("e5").minutes == pytest.approx(1.5 + 15)
    assert site.dollars == pytest.approx(16.5 / 60 * 0.067)
    assert _state(one.pause()) == ("paused", None)
    site.advance(10_000)
    assert site.dollars == pytest.approx(16.5 / 60 * 0.067)
    assert one.resume().status == "pending"
    site.advance(92)
    assert one.fetch().status == "running"
    assert one.resume().status == "running"
    one.delete()
    assert api.list_inference_endpoints(namespace="acme") == []
    assert site.dollars == pytest.approx(18 / 60 * 0.067)


def test_update_changes_only_what_is_sent(api: HfApi, site: DeploymentsApi) -> None:
    one = api.create_inference_endpoint("e5", **CPU, tags=["hubgate"])
    site.advance(92)
    one.update(min_replica=1, max_replica=3)
    assert one.raw["compute"]["scaling"] == {"minReplica": 1, "maxReplica": 3, "scaleToZeroTimeout": 15}
    assert (one.raw["tags"], one.status) == (["hubgate"], "updating")
    site.advance(60)
    assert one.fetch().status == "running"


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (
            {"instance_type": "c6i"},
            400,
            "Instance compute 'Cpu' - 'c6i' - 'x2' in 'aws' - 'us-east-1' not found",
        ),
        ({"region": "mars-1"}, 400, "not found"),
        ({"instance_type": "intel-spr", "max_replica": 31}, 400, "62 of 60 accelerators"),
        ({"custom_image": {"tei": {"port": 80}}}, 422, "missing field `url`"),
        ({"custom_image": {"own": {"port": 80}}}, 422, "expected one of"),
        ({"min_replica": 2, "max_replica": 1}, 400, "minReplica"),
    ],
)
def test_body_that_is_not_valid_is_refused(
    api: HfApi, site: DeploymentsApi, change: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_inference_endpoint("e5", **CPU | change)
    assert caught.value.response.status_code == status
    assert words in caught.value.response.text
    assert site.hosted == {}


@pytest.mark.parametrize(
    ("name", "status"), [("taken", 409), ("Upper", 400), ("ends-", 400), ("x" * 33, 400)]
)
def test_name_that_is_taken_or_not_valid_is_refused(api: HfApi, name: str, status: int) -> None:
    api.create_inference_endpoint("taken", **CPU)
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_inference_endpoint(name, **CPU)
    assert caught.value.response.status_code == status


@pytest.mark.parametrize(("fault", "status"), [("no-right", 403), ("no-payment", 402), ("limited", 429)])
def test_refusals_of_one_method_leave_others_alone(
    api: HfApi, site: DeploymentsApi, fault: str, status: int
) -> None:
    site.fail(fault, method="POST")
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_inference_endpoint("e5", **CPU)
    assert caught.value.response.status_code == status
    assert api.list_inference_endpoints(namespace="acme") == []


def test_lost_reply_leaves_one_endpoint_behind(api: HfApi, site: DeploymentsApi) -> None:
    site.cut("POST", after=True)
    with pytest.raises(Exception, match="disconnected"):
        api.create_inference_endpoint("e5", **CPU)
    assert [one.name for one in api.list_inference_endpoints(namespace="acme")] == ["e5"]
    site.cut("POST", after=False)
    with pytest.raises(Exception, match="disconnected"):
        api.create_inference_endpoint("other", **CPU)
    assert [one.name for one in api.list_inference_endpoints(namespace="acme")] == ["e5"]


def test_unknown_fields_are_ignored_and_secrets_not_returned(api: HfApi, site: DeploymentsApi) -> None:
    image = {"custom": {"url": "acme/own:1", "nonsense": 1}}
    one = api.create_inference_endpoint(
        "e5",
        **CPU | {"custom_image": image},
        secrets={"KEY": "hidden"},
        container_registry_username="ada",
        container_registry_password="hidden",
    )
    assert one.raw["model"]["image"]["custom"] == {
        "url": "acme/own:1",
        "credentials": {"username": "ada", "password": ""},
    }
    assert "hidden" not in str(api.get_inference_endpoint("e5", namespace="acme").raw)
    assert site.one("e5").body["model"]["secrets"] == {"KEY": "hidden"}


def test_hardware_has_prices_and_quota(api: HfApi, site: DeploymentsApi) -> None:
    api.create_inference_endpoint("e5", **CPU | {"max_replica": 3})
    listed = {one.id: one for one in api.list_inference_endpoints_hardware(namespace="acme")}
    cpu = listed["aws-us-east-1-intel-spr-x2"]
    assert (cpu.price_per_hour, cpu.num_cpus, cpu.memory_gb, cpu.gpu_memory_gb) == (0.067, 2, 4.0, None)
    assert (cpu.used_accelerators, cpu.max_accelerators) == (6, 60)
    assert listed["gcp-us-east4-nvidia-l4-x1"].gpu_memory_gb == 24
    site.change_price("aws", "intel-spr", "x2", 0.07)
    raised = {one.id: one for one in api.list_inference_endpoints_hardware(namespace="acme")}
    assert raised["aws-us-east-1-intel-spr-x2"].price_per_hour == 0.07


@pytest.mark.filterwarnings("ignore:.*experimental:UserWarning")
def test_catalogue_lists_and_deploys_recipes(api: HfApi, site: DeploymentsApi) -> None:
    site.catalogue = [
        catalogue_item(
            "intfloat/e5-small-v2",
            "sentence-embeddings",
            publicId="r1",
            accelerator="cpu",
            engineType="tei",
        )
    ]
    assert api.list_inference_catalog(engine="vllm") == []
    assert api.list_inference_catalog(search="E5-small")[0].recipes[0].engine == "tei"
    by_model = api.create_inference_endpoint_from_catalog("intfloat/e5-small-v2", name="a", namespace="acme")
    by_recipe = api.create_inference_endpoint_from_catalog(recipe_id="r1", name="b", namespace="acme")
    assert [by_model.name, by_recipe.name] == ["a", "b"]
    with pytest.raises(HfHubHTTPError):
        api.create_inference_endpoint_from_catalog("acme/other", name="c", namespace="acme")


def test_endpoint_that_fails_or_hangs_keeps_its_state(api: HfApi, site: DeploymentsApi) -> None:
    site.ends_in = {"broken": "failed", "hangs": "initializing"}
    broken = api.create_inference_endpoint("broken", **CPU)
    hangs = api.create_inference_endpoint("hangs", **CPU)
    site.advance(3600)
    assert hangs.fetch().status == "initializing"
    assert site.one("hangs").minutes == pytest.approx((3600 - 2) / 60)
    with pytest.raises(InferenceEndpointError):
        broken.fetch().wait(timeout=0)


class TestServed:
    """An endpoint whose URL leads to the look-alike of a server."""

    def test_calls_need_a_running_endpoint_and_wake_it_from_zero(
        self, api: HfApi, site: DeploymentsApi
    ) -> None:
        with lookalike("tei") as server, httpx.Client(headers={"Authorization": "Bearer t"}) as client:
            site.servers["intfloat/e5-small-v2"] = server.url
            one = api.create_inference_endpoint("e5", **CPU)
            site.advance(92)
            url = one.fetch().url
            assert url is not None
            assert client.get(f"{url}/health").status_code == 200
            assert client.post(f"{url}/embed", json={"inputs": ["a"]}).json() == [
                [pytest.approx(value, abs=1e-6) for value in _vector(server.url, client)]
            ]
            assert one.wait(timeout=0).status == "running"
            assert httpx.get(f"{url}/health").status_code == 401
            site.advance(15 * 60)
            assert client.get(f"{url}/health").status_code == 503
            assert one.fetch().status == "initializing"
            site.advance(90)
            assert client.get(f"{url}/health").status_code == 200
            one.pause()
            assert client.get(f"{url}/health").json() == {"error": "Bad Request: Invalid state"}

    def test_url_can_change_after_resume(self, api: HfApi, site: DeploymentsApi) -> None:
        site.new_url_after_resume = True
        with lookalike("tei") as server, httpx.Client(headers={"Authorization": "Bearer t"}) as client:
            site.servers["intfloat/e5-small-v2"] = server.url
            one = api.create_inference_endpoint("e5", **CPU)
            site.advance(92)
            old = one.fetch().url
            one.pause().resume()
            site.advance(92)
            new = one.fetch().url
            assert old != new
            assert client.get(f"{old}/health").status_code == 404
            assert client.get(f"{new}/health").status_code == 200


def _state(one: InferenceEndpoint) -> tuple[str, str | None]:
    return one.raw["status"]["state"], one.url


def _vector(url: str, client: httpx.Client) -> list[float]:
    vectors: list[list[float]] = client.post(f"{url}/embed", json={"inputs": ["a"]}).json()
    return vectors[0]
