"""The provider table produces what Hugging Face's clients send, compared with their helpers and a recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from huggingface_hub.inference._providers import PROVIDERS

from hubgate.domain.calls import Chat, Complete, Embed
from hubgate.upstreams.engines.providers import CHAT_ROUTE, COMPLETION_ROUTES, EMBED_ROUTES

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUTER = "https://router.huggingface.co"
MODEL = "org/PROVIDER_ID"
RECORDED = Path(__file__).parents[4] / "shared" / "recordings" / "hosted" / "provider_routes.json"
EMBED = Embed(texts=["a", "b"], dimensions=8)
COMPLETE = Complete(prompt="hi", fields={"max_tokens": b"4", "temperature": b"0.1", "stop": b'["x"]'})
CHAT_FIELDS = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


def ours(task: str, provider: str, model: str) -> tuple[str, dict[str, Any]]:
    """The URL and the body of a request, as the gateway makes them."""
    if task == "feature-extraction":
        route = EMBED_ROUTES[provider]
        body: Mapping[str, Any] = route.body(EMBED, model)
        return ROUTER + route.path.format(model=model), json.loads(orjson.dumps(body))
    completion = COMPLETION_ROUTES[provider]
    return ROUTER + completion.path.format(model=model), json.loads(
        completion.body(COMPLETE, model, stream=False)
    )


def check(task: str, body: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Ours says all that theirs does; limits are renamed, and `normalize` is the gateway's own work where unknown."""
    theirs = dict(theirs)
    if "max_new_tokens" in theirs and "prompt" in theirs:
        theirs["max_tokens"] = theirs.pop("max_new_tokens")
    if task == "feature-extraction":
        theirs.pop("normalize", None)
    parameters, wanted = body.pop("parameters", {}), theirs.pop("parameters", {})
    assert wanted.items() <= parameters.items()
    assert theirs.items() <= body.items()


ROWS = [("feature-extraction", name) for name in EMBED_ROUTES] + [
    ("text-generation", name) for name in COMPLETION_ROUTES
]
WRITES = {"stop": ["x"], "temperature": 0.1, "max_new_tokens": 4}


@pytest.mark.parametrize(("task", "provider"), ROWS)
def test_provider_table_matches_huggingface_hub_helpers(task: str, provider: str) -> None:
    helper: Any = PROVIDERS[provider][task]  # type: ignore[index] # its keys are spelled out as types
    mapping: Any = type("Mapping", (), {"provider_id": MODEL, "task": task, "provider": provider})()
    inputs = ["a", "b"] if task == "feature-extraction" else "hi"
    parameters = {"dimensions": 8} if task == "feature-extraction" else dict(WRITES)
    theirs = helper._prepare_payload_as_dict(inputs, parameters, mapping)
    url, body = ours(task, provider, MODEL)
    assert url == helper._prepare_url("hf_x", MODEL)
    check(task, body, {"model": MODEL, **theirs} if "model" in body else theirs)


def test_gateway_knows_every_provider_of_huggingface_hub() -> None:
    for task, table in (("feature-extraction", EMBED_ROUTES), ("text-generation", COMPLETION_ROUTES)):
        known = {str(name) for name, tasks in PROVIDERS.items() if task in tasks}
        assert known == set(table)


def test_hf_inference_receives_the_truncation_side() -> None:
    body = EMBED_ROUTES["hf-inference"].body(Embed(texts=["a"], truncate_left=True), None)
    assert body == {"inputs": ["a"], "truncate": True, "truncation_direction": "left"}


def test_chat_request_has_openai_format() -> None:
    fields = {name: orjson.dumps(value) for name, value in CHAT_FIELDS.items()}
    body = json.loads(CHAT_ROUTE.body(Chat(fields=fields), f"{MODEL}:groq", stream=False))
    assert ROUTER + CHAT_ROUTE.path == f"{ROUTER}/v1/chat/completions"
    assert list(body) == ["model", "messages", "max_tokens"]
    assert body == {"model": f"{MODEL}:groq", **CHAT_FIELDS}


@pytest.mark.skipif(
    not RECORDED.exists(), reason="the recorded routes of the providers lie beside the project"
)
def test_provider_table_matches_recorded_routes() -> None:
    rows = [row for row in json.loads(RECORDED.read_text("utf-8")) if (row["task"], row["provider"]) in ROWS]
    assert len(rows) == len(ROWS)
    for row in rows:
        url, body = ours(row["task"], row["provider"], "PROVIDER_ID")
        assert url == row["routed_url"]
        check(row["task"], body, row["body"])
