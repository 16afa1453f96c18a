"""Server descriptions, recorded and malformed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hubgate.domain.endpoint import GENERATION_TASKS, Engine, Task
from hubgate.upstreams.engines.descriptions import tasks_by_routes
from hubgate.upstreams.engines.detect import from_info, from_models

ENGINES = Path(__file__).parents[2] / "data" / "engines"


def recorded(engine: str, label: str) -> Any:
    exchanges = json.loads((ENGINES / f"{engine}.json").read_text("utf-8"))
    body = next(e["response"]["body"] for e in exchanges if e["label"] == label)
    return json.loads(body)


@pytest.mark.parametrize(
    ("recording", "engine", "model", "limit"),
    [
        ("vllm-0.32.0-embed", Engine.VLLM, "minilm", 256),
        ("vllm-0.32.0-llm", Engine.VLLM, "tiny", 256),
        ("infinity-0.0.78-embed", Engine.INFINITY, "minilm", None),
    ],
)
def test_recorded_model_lists_are_recognized(
    recording: str, engine: Engine, model: str, limit: int | None
) -> None:
    found = from_models(recorded(recording, "GET /v1/models"), None, None)
    assert found is not None
    assert (found.facts.engine, found.facts.model, found.facts.max_input_tokens) == (engine, model, limit)


def test_recorded_infinity_reports_its_model_task() -> None:
    found = from_models(recorded("infinity-0.0.78-embed", "GET /v1/models"), None, None)
    assert found is not None
    assert found.tasks == frozenset({Task.TEXT_EMBEDDING})


@pytest.mark.parametrize(
    ("recording", "label"),
    [("vllm-0.32.0-embed", "GET /models"), ("infinity-0.0.78-embed", "GET /info")],
)
def test_recorded_errors_are_not_read_as_descriptions(recording: str, label: str) -> None:
    assert from_models(recorded(recording, label), None, None) is None
    assert from_info(recorded(recording, label)) is None


def test_unknown_model_list_means_openai_server() -> None:
    models = {"data": [{"id": "a"}, {"id": "b", "owned_by": "someone"}]}
    first, named = from_models(models, None, None), from_models(models, "b", "/embeddings")
    assert first is not None
    assert named is not None
    assert (first.facts.engine, first.facts.model) == (Engine.OPENAI, "a")
    assert (named.facts.model, named.facts.route) == ("b", "/embeddings")


def test_first_model_for_the_task_is_chosen_unless_one_is_named() -> None:
    """As infinity 0.0.78 reports for two models (`make test-engines`)."""
    embedder = {"id": "embedder", "owned_by": "infinity", "capabilities": ["embed"]}
    ranker = {"id": "ranker", "owned_by": "infinity", "capabilities": ["rerank"]}
    models = {"data": [embedder, ranker]}
    for wanted, task, model, does in (
        (None, Task.TEXT_EMBEDDING, "embedder", Task.TEXT_EMBEDDING),
        (None, Task.RERANK, "ranker", Task.RERANK),
        ("embedder", Task.RERANK, "embedder", Task.TEXT_EMBEDDING),
        (None, Task.CHAT_COMPLETION, "embedder", Task.TEXT_EMBEDDING),
    ):
        found = from_models(models, wanted, None, task)
        assert found is not None
        assert (found.facts.model, found.tasks) == (model, frozenset({does}))


@pytest.mark.parametrize("odd", [None, [], {}, {"data": None}, {"data": []}, {"data": ["a"]}, 3, "x"])
def test_invalid_description_is_ignored(odd: object) -> None:
    assert from_models(odd, None, None) is None
    assert from_info(odd) is None


def test_invalid_values_in_description_are_omitted() -> None:
    info = {
        "model_type": "embedding",
        "tokenization_workers": 1,
        "max_input_length": True,
        "auto_truncate": "yes",
    }
    found = from_info(info)
    assert found is not None
    assert (found.facts.max_input_tokens, found.facts.auto_truncate, found.facts.pooling) == (
        None,
        None,
        None,
    )
    assert found.tasks == frozenset({Task.TEXT_EMBEDDING})
    empty = from_info({"model_type": {}, "tokenization_workers": 1})
    assert empty is not None
    assert empty.tasks == frozenset()


def test_routes_determine_tasks() -> None:
    assert (
        tasks_by_routes({"paths": {"/v1/completions": {}, "/v1/chat/completions": {}, "/x": {}}})
        == GENERATION_TASKS
    )
    assert tasks_by_routes({"paths": []}) is None
    assert tasks_by_routes(None) is None
