"""Local models of several kinds behind one running gateway, as its clients see them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from console_client import ConsoleClient
from tiny_model import write_causal_ranker, write_cross_encoder

from hubgate.runtime.machine import multiplies_int8

if TYPE_CHECKING:
    from running_gateway import RunningGateway

DATA = Path(__file__).parents[1] / "data" / "tiny_models"
RECORDED = json.loads((DATA / "answers.json").read_text("utf-8"))
TEXTS, ANSWERS = RECORDED["texts"][1:], RECORDED["answers"]
"""Without the first text, which is empty: most faces refuse it."""


def test_embedding_models_and_rerankers_run_side_by_side(gateway: RunningGateway, tmp_path: Path) -> None:
    models = (
        ("mpnet", "text_embedding", DATA / "mpnet"),
        ("pairs", "rerank", write_cross_encoder(tmp_path / "pairs")),
        ("prompts", "rerank", write_causal_ranker(tmp_path / "Qwen3-Reranker-tiny")),
    )
    for name, task, folder in models:
        shown = gateway.add(name, source="local", model=str(folder), task=task, precision="auto")
        assert shown["precision"] == "auto"
        assert shown["facts"]["precision"] in {"f32", "bf16"}
        assert gateway.request("GET", f"/hf/{name}/info").json()["model_dtype"] in {"float32", "bfloat16"}

    embedded = gateway.request("POST", "/v1/embeddings", {"model": "mpnet", "input": TEXTS}).json()
    for row, expected in zip(embedded["data"], ANSWERS["mpnet"]["vectors"][1:], strict=True):
        assert row["embedding"] == pytest.approx(expected, abs=1e-2)

    documents = ["the capital", "the port", "the port of Paris"]
    for name in ("pairs", "prompts"):
        body = {"model": name, "query": "the port of Paris", "documents": documents}
        ranked = gateway.request("POST", "/v1/rerank", body).json()["results"]
        assert [row["index"] for row in ranked] == [2, 1, 0]
        assert all(0 <= row["relevance_score"] <= 1 for row in ranked)
    refused = gateway.request("POST", "/v1/rerank", body | {"model": "pairs", "instruction": "Find ships"})
    assert refused.status == 400
    followed = gateway.request("POST", "/v1/rerank", body | {"instruction": "the port of Paris"}).json()[
        "results"
    ]
    assert followed[0]["relevance_score"] != ranked[0]["relevance_score"]

    metrics = gateway.request("GET", "/metrics").body.decode()
    if sys.platform == "linux":
        assert 'hubgate_local_model_bytes{model="mpnet"' in metrics
        assert 'hubgate_local_model_bytes{model="pairs"' in metrics


def test_int8_shows_its_self_test_and_shares_no_vectors_with_f32(gateway: RunningGateway) -> None:
    vectors = []
    for name, precision in (("exact", "f32"), ("small", "int8")):
        shown = gateway.add(name, source="local", model=str(DATA / "mpnet"), precision=precision)
        assert shown["facts"]["precision"] == precision
        body = {"model": name, "input": TEXTS}
        replies = [gateway.request("POST", "/v1/embeddings", body).json() for _ in range(2)]
        assert replies[0]["data"] == replies[1]["data"]
        vectors.append([row["embedding"] for row in replies[0]["data"]])
    assert vectors[0] != vectors[1]
    assert vectors[0] == [pytest.approx(row, abs=0.1) for row in vectors[1]]

    figure = shown["facts"]["precision_self_test"]
    assert 0.999 <= figure < 1
    info = gateway.request("GET", "/hf/small/info").json()
    assert (info["model_dtype"], info["hubgate"]["precision_self_test"]) == ("int8", figure)
    assert "precision_self_test" not in gateway.request("GET", "/hf/exact/info").json()["hubgate"]
    console = ConsoleClient(gateway)
    console.sign_in()
    assert f"Self-test against f32 {figure}" in console.get("/ui/models/small/overview").words
    slow = any("saves memory but no time" in warning for warning in shown["facts"].get("warnings", ()))
    assert slow is not multiplies_int8()


def test_reranker_of_random_weights_is_refused(gateway: RunningGateway) -> None:
    form = {"name": "wrong", "source": "local", "model": str(DATA / "ranker-bert"), "task": "rerank"}
    error = gateway.request("POST", "/api/endpoints", form).json()["error"]
    assert error["cause"] == "ranks_at_random"
    assert "lack the trained weights" in error["remedy"]


def test_model_of_another_task_is_rejected_at_registration(gateway: RunningGateway) -> None:
    form = {"name": "wrong", "source": "local", "model": str(DATA / "ranker-bert")}
    refused = gateway.request("POST", "/api/endpoints", form)
    assert refused.status == 400
    assert "does rerank, not text_embedding" in refused.json()["error"]["message"]
