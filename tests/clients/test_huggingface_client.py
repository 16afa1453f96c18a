"""Hugging Face's client against a real gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

if TYPE_CHECKING:
    from running_gateway import RunningGateway


@pytest.fixture
def client(gateway: RunningGateway) -> InferenceClient:
    """The client, with an endpoint named fake to ask."""
    gateway.add("fake", dimensions=8)
    return InferenceClient(base_url=f"{gateway.url}/hf/fake", api_key=gateway.admin_key)


def test_feature_extraction_returns_one_row_per_text(client: InferenceClient) -> None:
    one = client.feature_extraction("one text")
    two = client.feature_extraction(["one text", "another"])
    assert one.shape == (1, 8)
    assert two.shape == (2, 8)
    assert (two[0] == one[0]).all()


def test_every_option_of_feature_extraction_but_base64_is_accepted(client: InferenceClient) -> None:
    vectors = client.feature_extraction(
        "one text",
        normalize=True,
        truncate=True,
        truncation_direction="right",
        dimensions=8,
        encoding_format="float",
    )
    assert vectors.shape == (1, 8)


def test_a_base_url_that_ends_in_v1_works(gateway: RunningGateway) -> None:
    gateway.add("fake", dimensions=8)
    client = InferenceClient(base_url=f"{gateway.url}/hf/fake/v1", api_key=gateway.admin_key)
    assert client.feature_extraction("one text").shape == (1, 8)


async def test_async_client_works(gateway: RunningGateway) -> None:
    gateway.add("fake", dimensions=8)
    async with AsyncInferenceClient(base_url=f"{gateway.url}/hf/fake", api_key=gateway.admin_key) as client:
        assert (await client.feature_extraction("one text")).shape == (1, 8)


def test_root_url_works_for_key_with_default_endpoint(gateway: RunningGateway) -> None:
    gateway.add("fake", dimensions=8)
    key = gateway.create_key(default_endpoint="fake")
    client = InferenceClient(base_url=gateway.url, api_key=key)
    assert client.feature_extraction("one text").shape == (1, 8)


def test_endpoint_info_and_health_check_work(gateway: RunningGateway) -> None:
    gateway.add("fake", dimensions=8)
    client = InferenceClient(f"{gateway.url}/hf/fake", provider="hf-inference", token=gateway.admin_key)
    assert client.get_endpoint_info()["served_model_name"] == "fake"
    assert client.health_check()


def test_errors_show_hubgate_message_and_request_id(client: InferenceClient) -> None:
    with pytest.raises(HfHubHTTPError, match=r"\[inputs\] is an empty list") as caught:
        client.feature_extraction([])
    assert caught.value.response.status_code == 400
    assert caught.value.request_id
    with pytest.raises(HfHubHTTPError, match="Use /v1/embeddings"):
        client.feature_extraction("one", encoding_format="base64")


def test_a_wrong_key_and_an_unknown_endpoint_are_different_errors(gateway: RunningGateway) -> None:
    wrong = InferenceClient(base_url=f"{gateway.url}/hf/none", api_key="hg_wrong")
    with pytest.raises(HfHubHTTPError, match="401"):
        wrong.feature_extraction("one")
    unknown = InferenceClient(base_url=f"{gateway.url}/hf/none", api_key=gateway.admin_key)
    with pytest.raises(HfHubHTTPError, match=r"No endpoint is named \[none\]"):
        unknown.feature_extraction("one")
