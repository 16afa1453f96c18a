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


def hint(gateway: RunningGateway, model: str, key: str | None = None) -> str:
    """The text after the first sentence of the error."""
    reply = embed(gateway, model, key)
    assert reply.status == 404, reply.body
    message: str = reply.json()["error"]["message"]
    wrong, _, remedy = message.partition("]. ")
    assert wrong == f"No endpoint is named [{model[:200]}"
    return remedy


@pytest.mark.parametrize("asked", [MINILM, MINILM.lower(), "all-MiniLM-L6-v2"])
def test_hint_names_the_endpoint_of_a_requested_repository(gateway: RunningGateway, asked: str) -> None:
    gateway.add("minilm", model=MINILM)
    gateway.add("other", model="org/other")
    assert hint(gateway, asked) == f"That model is called [minilm] here. {ALL_NAMES}"
    for name in ("b", "c", "d"):
        gateway.add(name, model=MINILM)
    assert hint(gateway, asked) == f"That model is called [b], [c] or [d] here. {ALL_NAMES}"


def test_hint_suggests_a_similar_endpoint_name(gateway: RunningGateway) -> None:
    gateway.add("minilm", model=MINILM)
    assert hint(gateway, "minlm") == f"Did you mean [minilm]? {ALL_NAMES}"
    assert hint(gateway, "MiniLM") == f"Did you mean [minilm]? {ALL_NAMES}"
    assert hint(gateway, "sentence-transformers/all-MiniLM-L12-v2") == f"Did you mean [minilm]? {ALL_NAMES}"
    assert hint(gateway, "gpt-4o") == ALL_NAMES
    assert hint(gateway, "m" * 5000) == ALL_NAMES


def test_hint_omits_endpoints_outside_the_scope_of_the_key(gateway: RunningGateway) -> None:
    gateway.add("minilm", model=MINILM)
    gateway.add("words", model="org/tiny")
    key = gateway.create_key(endpoints=["words"])
    assert hint(gateway, MINILM, key) == ALL_NAMES
    assert hint(gateway, "minlm", key) == ALL_NAMES
    assert hint(gateway, "org/tiny", key) == f"That model is called [words] here. {ALL_NAMES}"


@pytest.mark.parametrize(
    "path", [f"/hf/{MINILM}", f"/hf/{MINILM}/v1/models", f"/v1/models/{MINILM}", f"/api/endpoints/{MINILM}"]
)
def test_hint_names_the_endpoint_of_a_repository_in_the_path(gateway: RunningGateway, path: str) -> None:
    gateway.add("minilm", model=MINILM)
    gateway.add("words", model="org/tiny")
    assert "That model is called [minilm] here." in gateway.request("GET", path).body.decode()
    key = gateway.create_key(endpoints=["words"])
    refused = gateway.request("GET", path, key=key)
    assert refused.status == 404
    assert "minilm]" not in refused.body.decode()


@pytest.mark.parametrize("header", ["x-api-key", "api-key", "x-goog-api-key"])
def test_hint_names_the_header_for_a_key_in_another_header(gateway: RunningGateway, header: str) -> None:
    request = urllib.request.Request(gateway.url + "/v1/models", headers={header: gateway.admin_key})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=240)
    with caught.value as refused:
        body = refused.read().decode()
    assert refused.code == 401
    assert json.loads(body)["error"]["message"] == (
        f"hubgate does not accept a key in the header [{header}]. "
        "Send a gateway key as `Authorization: Bearer hg_…`."
    )
    assert gateway.admin_key not in body


@pytest.mark.parametrize("header", ["", "Bearer hf_ATokenFromTheEnvironment"])
def test_hint_names_the_setting_that_accepts_keys_in_the_path(gateway: RunningGateway, header: str) -> None:
    path = f"/k/{gateway.admin_key}/hf/e5/embed"
    refused = gateway.request("POST", path, {"inputs": "a"}, headers={"authorization": header})
    assert refused.status == 401
    assert refused.json()["error"] == (
        "hubgate does not accept a key in the path. Send a gateway key as `Authorization: Bearer hg_…`. "
        "For clients that cannot, set HUBGATE_KEYS_IN_PATH=1."
    )


def test_another_key_header_is_ignored_when_authorization_is_present(gateway: RunningGateway) -> None:
    assert gateway.request("GET", "/v1/models", headers={"x-api-key": "other"}).status == 200
    wrong = gateway.request("GET", "/v1/models", key="wrong", headers={"x-api-key": "other"})
    assert "unknown" in wrong.json()["error"]["message"]
