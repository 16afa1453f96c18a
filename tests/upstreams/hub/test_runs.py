"""Whether a server is known to run, queried only from Hugging Face's API so that no endpoint is woken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import lookalike
from lookalikes.deployments import TOKEN, deployment, running_deployments

from hubgate.domain.endpoint import Endpoint, Source, Target, Task
from hubgate.domain.secret import Secret
from hubgate.settings import Settings
from hubgate.upstreams.sources import ModelSources

if TYPE_CHECKING:
    from pathlib import Path


async def known_to_run(home: Path, state: str, *, token: str | None = TOKEN, **fields: Any) -> bool:
    """Of an endpoint of a namespace with one Inference Endpoint, whose server nobody may ask."""
    with running_deployments() as site, lookalike("tei") as server:
        site.items["acme"] = [deployment("e5", state=state, url=server.url)]
        settings = Settings(home=home, secret_key_file=home / "key", endpoints_api_url=f"{site.url}/v2")
        sources = ModelSources(settings)
        usual: dict[str, Any] = {"source": Source.DEDICATED, "url": server.url, "namespace": "acme"}
        endpoint = Endpoint(name="e5", task=Task.TEXT_EMBEDDING, **usual | fields)
        runs = await sources.runs(Target(endpoint, Secret(token) if token else None))
        await sources.close()
        assert server.requests == []
    return runs


@pytest.mark.parametrize(
    ("state", "runs"),
    [
        ("running", True),
        ("updating", True),
        ("scaledToZero", False),
        ("initializing", False),
        ("paused", False),
        ("failed", False),
        ("anything", False),
    ],
)
async def test_running_state_follows_hugging_face(tmp_path: Path, state: str, runs: bool) -> None:
    assert await known_to_run(tmp_path, state) is runs


@pytest.mark.parametrize(
    "fields",
    [
        {"namespace": None},
        {"namespace": "nobody"},
        {"namespace": "not a name"},
        {"url": "http://127.0.0.1:1"},
        {"source": Source.FAKE},
        {"token": None},
    ],
)
async def test_running_state_is_unknown_without_hugging_face_data(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    assert await known_to_run(tmp_path, "running", **fields) is False


async def test_first_of_several_tokens_is_used_for_the_query(tmp_path: Path) -> None:
    assert await known_to_run(tmp_path, "running", token=f"{TOKEN}\nhf_another") is True
