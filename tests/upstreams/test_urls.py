"""Normalizing and checking the URL that an operator enters."""

from __future__ import annotations

import pytest

from hubgate.domain.errors import Cause, InvalidEndpoint
from hubgate.upstreams.urls import base_url, host_of

ROUTES = [
    "",
    "/",
    "//",
    "/v1",
    "/v1/",
    "/embed",
    "/embeddings",
    "/v1/embeddings",
    "/v1/embeddings/",
    "/v1/chat/completions",
    "/v1/models",
    "/info",
    "/health",
    "/rerank",
]


@pytest.mark.parametrize("path", ["", "/my/models/e5", "/v2", "/embedder"])
@pytest.mark.parametrize("route", ROUTES)
def test_known_route_in_url_is_removed_and_custom_path_is_kept(path: str, route: str) -> None:
    assert base_url(f" https://host:8443{path}{route}") == f"https://host:8443{path}"


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("file:///etc/passwd", "http"),
        ("ftp://host/x", "http"),
        ("host:8080", "http"),
        ("not a url", "spaces"),
        ("https://ho\x00st", "control"),
        ("https://", "no host"),
        ("http://[::1", "malformed"),
        ("http://host:99999999", "malformed"),
        ("http://" + "ä" * 80, "malformed"),
        ("http://user:hunter2@host", "password"),
        ("http://host/?token=hunter2", "query or a fragment"),
        ("http://host/#hunter2", "query or a fragment"),
        ("hf_hunter2", "http"),
        ("", "http"),
    ],
)
def test_invalid_url_is_rejected_without_repeating_it(url: str, part: str) -> None:
    with pytest.raises(InvalidEndpoint, match=part) as caught:
        base_url(url)
    assert caught.value.remedy
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["/models/org/name", "/pipeline/feature-extraction/org/name", "/models/org/name/"]
)
def test_old_hosted_address_is_rejected_naming_the_new_one(path: str) -> None:
    with pytest.raises(InvalidEndpoint) as caught:
        base_url(f"https://api-inference.huggingface.co{path}")
    assert caught.value.cause is Cause.OLD_ADDRESS
    assert "register [org/name] by its name" in caught.value.remedy


@pytest.mark.parametrize(
    "url", ["https://huggingface.co/intfloat/e5-base-v2", "https://endpoints.huggingface.co/org/endpoints/e5"]
)
def test_url_of_a_model_page_is_rejected(url: str) -> None:
    with pytest.raises(InvalidEndpoint, match="not a model server"):
        base_url(url)


def test_messages_name_the_host_and_no_secrets() -> None:
    assert host_of("https://user:secret@host:81/secret?key=secret") == "https://host:81"
