"""Errors have hints: the endpoint that was probably meant, and the header for a key."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from running_gateway import Reply, RunningGateway

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
ALL_NAMES = "GET /v1/models lists the names."


def embed(gateway: RunningGateway, model: str, key: str | None = None) -> Reply:
    return gateway.request("POST", "/v1/embeddings", {"model": model, "input": "a"}, key=key)


def told(gateway: RunningGateway, model: str, key: str | None = None) -> str:
    """What is said after the error's first sentence."""
    reply = embed(gateway, model, key)
    assert reply.status == 404, reply.body
    message: str = reply.json()["error"]["message"]
    wrong, _, remedy = message.partition("]. ")
    assert wrong == f"No endpoint is named [{model[:200]}"
    return remedy


@pytest.mark.parametrize("asked", [MINILM, MINILM.lower(), "all-MiniLM-L6-v2"])
def test_a_model_asked_for_by_its_repository_is_told_by_its_endpoints_name(
    gateway: RunningGateway, asked: str
) -> None:
    gateway.add("minilm", model=MINILM)
    gateway.add("other", model="org/other")
    assert told(gateway, asked) == f"That model is called [minilm] here. {ALL_NAMES}"
    for name in ("b", "c", "d"):
        gateway.add(name, model=MINILM)
    assert told(gateway, asked) == f"That model is called [b], [c] or [d] here. {ALL_NAMES}"


def test_a_name_that_is_nearly_right_is_told(gateway: RunningGateway) -> None:
    gateway.add("minilm", model=MINILM)
    assert told(gateway, "minlm") == f"Did you mean [minilm]? {ALL_NAMES}"
    assert told(gateway, "MiniLM") == f"Did you mean [minilm]? {ALL_NAMES}"
    assert told(gateway, "sentence-transformers/all-MiniLM-L12-v2") == f"Did you mean [minilm]? {ALL_NAMES}"
    assert told(gateway, "gpt-4o") == ALL_NAMES
    assert told(gateway, "m" * 5000) == ALL_NAMES


def test_no_endpoint_out_of_a_keys_scope_is_told(gateway: RunningGateway) -> None:
    gateway.add("minilm", model=MINILM)
    gateway.add("words", model="org/tiny")
    key = gateway.create_key(endpoints=["words"])
    assert told(gateway, MINILM, key) == ALL_NAMES
    assert told(gateway, "minlm", key) == ALL_NAMES
    assert told(gateway, "org/tiny", key) == f"That model is called [words] here. {ALL_NAMES}"


@pytest.mark.parametrize(
    "path", [f"/hf/{MINILM}", f"/hf/{MINILM}/v1/models", f"/v1/models/{MINILM}", f"/api/endpoints/{MINILM}"]
)
def test_a_repository_in_a_path_is_told_by_its_endpoints_name(gateway: RunningGateway, path: str) -> None:
    gateway.add("minilm", model=MINILM)
    gateway.add("words", model="org/tiny")
    assert "That model is called [minilm] here." in gateway.request("GET", path).body.decode()
    key = gateway.create_key(endpoints=["words"])
    refused = gateway.request("GET", path, key=key)
    assert refused.status == 404
    assert "minilm]" not in refused.body.decode()


@pytest.mark.parametrize("header", ["x-api-key", "api-key", "x-goog-api-key"])
def test_a_key_in_another_header_is_told_where_it_belongs(gateway: RunningGateway, header: str) -> None:
    request = urllib.request.Request(gateway.url + "/v1/models", headers={header: gateway.admin_key})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    with caught.value as refused:
        body = refused.read().decode()
    assert refused.code == 401
    assert json.loads(body)["error"]["message"] == (
        f"hubgate does not accept a key in the header [{header}]. "
        "Send a gateway key as `Authorization: Bearer hg_…`."
    )
    assert gateway.admin_key not in body


@pytest.mark.parametrize("header", ["", "Bearer hf_ATokenFromTheEnvironment"])
def test_a_key_in_a_path_that_is_not_read_is_told_how_to_have_it_read(
    gateway: RunningGateway, header: str
) -> None:
    path = f"/k/{gateway.admin_key}/hf/e5/embed"
    refused = gateway.request("POST", path, {"inputs": "a"}, headers={"authorization": header})
    assert refused.status == 401
    assert refused.json()["error"] == (
        "hubgate does not accept a key in the path. Send a gateway key as `Authorization: Bearer hg_…`. "
        "For clients that cannot, set HUBGATE_KEYS_IN_PATH=1."
    )


def test_a_key_in_another_header_harms_no_request_that_carries_one(gateway: RunningGateway) -> None:
    assert gateway.request("GET", "/v1/models", headers={"x-api-key": "other"}).status == 200
    wrong = gateway.request("GET", "/v1/models", key="wrong", headers={"x-api-key": "other"})
    assert "unknown" in wrong.json()["error"]["message"]
