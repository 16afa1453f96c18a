"""`/info` and `/health`, with TEI's fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hubgate import __version__
from hubgate.core.chunking import icu_version
from hubgate.domain.endpoint import Endpoint, Facts, Source, Task
from hubgate.domain.errors import RuntimeFailed

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import Call, Result

# TEI 1.9.3's OpenAPI: the required properties of `Info`.
REQUIRED = {
    "model_id",
    "model_dtype",
    "served_model_name",
    "model_type",
    "max_concurrent_requests",
    "max_input_length",
    "max_batch_tokens",
    "max_client_batch_size",
    "auto_truncate",
    "tokenization_workers",
    "version",
}


async def test_info_has_all_required_fields_of_tei_and_one_of_hubgate(scripted: ScriptedGateway) -> None:
    info = (await scripted.request("GET", "/hf/e5/info")).json()
    assert info.keys() >= REQUIRED
    assert info["model_id"] == "org/model"
    assert info["model_sha"] == "abc123"
    assert info["served_model_name"] == "e5"
    assert info["model_dtype"] == "float32"
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_input_length"] == 256
    assert info["max_client_batch_size"] == 32
    assert info["auto_truncate"] is True
    assert info["hubgate"] == {
        "version": __version__,
        "source": "fake",
        "engine": "fake",
        "engine_version": None,
        "dimensions": 2,
        "precision": "f32",
        "icu": icu_version(),
        "chunk_fit": None,
        "warnings": [],
    }


async def test_info_shows_the_engine_only_to_an_admin(scripted: ScriptedGateway) -> None:
    _, plain = await scripted.access.create("app")
    info = (await scripted.request("GET", "/hf/e5/info", key=plain)).json()
    assert info.keys() >= REQUIRED
    assert info["hubgate"].keys() == {"version", "source", "dimensions", "precision", "icu", "chunk_fit"}


async def test_info_omits_an_unknown_limit_and_truncation(
    scripted: ScriptedGateway,
) -> None:
    scripted.script.facts = Facts()
    await scripted.service.registry.register(
        Endpoint(name="bare", task=Task.TEXT_EMBEDDING, source=Source.FAKE), None
    )
    info = (await scripted.request("GET", "/hf/bare/info")).json()
    assert "max_input_length" not in info
    assert info["auto_truncate"] is False
    assert (info["model_id"], info["model_dtype"]) == ("bare", "unknown")
    assert info["model_type"] == {"embedding": {"pooling": "unknown"}}


@pytest.mark.parametrize("path", ["/info", "/health"])
async def test_bare_info_and_health_use_the_default_endpoint_of_the_key(
    scripted: ScriptedGateway, path: str
) -> None:
    _, plain = await scripted.access.create("app", default_endpoint="e5")
    assert (await scripted.request("GET", path, key=plain)).status == 200


@pytest.mark.parametrize("path", ["/hf/e5/health", "/hf/e5"])
async def test_health_is_200_without_a_body(scripted: ScriptedGateway, path: str) -> None:
    reply = await scripted.request("GET", path)
    assert (reply.status, reply.body) == (200, b"")


async def test_health_is_503_while_a_local_model_is_down(scripted: ScriptedGateway) -> None:
    await scripted.service.registry.register(
        Endpoint(name="local", task=Task.TEXT_EMBEDDING, source=Source.LOCAL, model="org/model"), None
    )

    def fail(call: Call) -> Result:
        raise RuntimeFailed("The weights are gone.")

    scripted.script.answer = fail
    await scripted.service.start()
    await scripted.service.startup.settled()
    reply = await scripted.request("GET", "/hf/local/health")
    assert (reply.status, reply.json()) == (
        503,
        {"error": "The weights are gone.", "error_type": "Unhealthy"},
    )
