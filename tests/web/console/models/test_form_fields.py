"""The model form has every field of `/api/endpoints`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import certifi
import msgspec
import pytest
from console_client import ConsoleClient, FormFields
from running_gateway import RunningGateway

from hubgate.settings import Settings
from hubgate.web.schemas.endpoint import EndpointForm

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "hf_aTokenThatNobodyHas1234"
NOT_ON_THE_PAGE = {"enabled"}
"""Switched on and off on the page of all models."""
NOT_SHOWN = {"token"}
"""Never sent to a browser."""
COMMON = {
    "model": "org/model",
    "rate_limit": {
        "requests_per_minute": 300,
        "tokens_per_minute": 10_000,
        "max_concurrent_requests": 4,
        "burst": 2,
    },
    "timeout": 2.5,
    "max_input_tokens": 256,
    "fallback": "named below",
    "cache": False,
}
HOSTS = ("http://127.0.0.1:1", "http://127.0.0.1:3128")
FULL: dict[str, dict[str, Any]] = {
    "embedding": COMMON
    | {
        "task": "text_embedding",
        "source": "dedicated",
        "url": "http://127.0.0.1:1",
        "hub_model": "org/original",
        "connection": "team",
        "namespace": "me",
        "engine": "vllm",
        "max_batch_texts": 16,
        "similarity": "dot_product",
        "dimensions": 384,
        "min_dimensions": 64,
        "prefixes": {
            "search": "\nInstruct: find\nQuery: ",
            "ingest": "d: ",
            "classification": "c: ",
            "clustering": "g: ",
        },
        "prompt_names": {"search": "web_search_query", "clustering": "s2s"},
        "chunking_settings": {
            "strategy": "recursive",
            "max_chunk_size": 50,
            "separators": ["\n# ", "(?<=x) ", "</p>"],
        },
        "proxy": "http://127.0.0.1:3128",
        "ca_bundle": certifi.where(),
    },
    "rerank": COMMON
    | {
        "task": "rerank",
        "source": "dedicated",
        "urls": ["http://127.0.0.1:1", "http://127.0.0.1:3"],
        "model": "org/reranker",
        "provider": "auto",
        "top_n": 3,
        "return_documents": False,
        "instruction": "Find the product",
    },
    "hosted": COMMON | {"task": "completion", "source": "router", "provider": "cheapest", "bill_to": "org"},
    "local": COMMON
    | {
        "task": "text_embedding",
        "source": "local",
        "model": "/no/such/folder",
        "precision": "auto",
        "prefixes": {},
        "chunking_settings": {"strategy": "word", "max_chunk_size": 120, "overlap": 20},
    },
}
"""Endpoints with a value of its own in every field that they have."""


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleClient]:
    """At a gateway that has these endpoints, disabled, as nothing runs there."""
    folder = tmp_path_factory.mktemp("gate")
    settings = Settings(home=folder / "home", secret_key_file=folder / "key", port=0, hf_offline=True)
    with RunningGateway(settings) as gateway:
        gateway.request("POST", "/api/connections", {"name": "team", "token": TOKEN, "hosts": HOSTS})
        for kind, full in FULL.items():
            other = {"name": f"{kind}-other", "task": full["task"], "url": "http://127.0.0.1:1"}
            for body in (other, {**full, "name": kind, "fallback": f"{kind}-other"}):
                assert gateway.request("POST", "/api/endpoints", {**body, "save_anyway": True}).status == 201
        console = ConsoleClient(gateway)
        console.sign_in()
        yield console


def stored(console: ConsoleClient, name: str) -> dict[str, Any]:
    """An endpoint as the API shows it."""
    shown: dict[str, Any] = console.gateway.request("GET", f"/api/endpoints/{name}").json()
    return shown


def test_every_api_field_is_covered_here() -> None:
    tried = {name for full in FULL.values() for name in full}
    form = msgspec.structs.fields(EndpointForm)
    assert tried | {"name"} | NOT_ON_THE_PAGE | NOT_SHOWN == {field.encode_name for field in form}
    usual = EndpointForm(name="usual")
    for name in tried:
        values = [full[name] for full in FULL.values() if name in full]
        assert any(value != getattr(usual, name) for value in values), name


@pytest.mark.parametrize("kind", FULL)
def test_model_stored_by_the_api_is_saved_unchanged_from_its_page(console: ConsoleClient, kind: str) -> None:
    before = stored(console, kind)
    fields = FormFields(console.get(f"/ui/models/{kind}/edit").text).sent
    page = console.post(f"/ui/models/{kind}/edit", {**fields, "save": "off"})
    assert page.headers["location"] == f"/ui/models/{kind}/overview?done=saved", page.words
    assert stored(console, kind) == before


@pytest.mark.parametrize("kind", FULL)
def test_page_can_set_every_field_of_the_api(console: ConsoleClient, kind: str) -> None:
    before = stored(console, kind)
    fields = FormFields(console.get(f"/ui/models/{kind}/edit").text).sent
    empty = FormFields(console.get("/ui/models/new").text).sent
    assert set(fields) <= {*empty, "csrf", "no_prefixes"}
    sent = {**fields, "name": f"{kind}-twin", "save": "off"}
    page = console.post("/ui/models/new", sent)
    assert page.headers["location"] == f"/ui/models/{kind}-twin/overview?done=kept", page.words
    twin = stored(console, f"{kind}-twin")
    for shown in (before, twin):
        if "separators" in shown.get(
            "chunking_settings", {}
        ):  # a line's end is written as an expression means it
            shown["chunking_settings"]["separators"][0] = "\\n# "
    assert twin == before | {"name": f"{kind}-twin"}
