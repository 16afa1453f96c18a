"""Local models of several kinds behind one running gateway, as its clients see them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from running_gateway import RunningGateway

DATA = Path(__file__).parents[1] / "data" / "tiny_models"
RECORDED = json.loads((DATA / "answers.json").read_text("utf-8"))
TEXTS, QUERY, ANSWERS = RECORDED["texts"][1:], RECORDED["query"], RECORDED["answers"]
"""Without the first text, which is empty: most faces refuse it."""


def test_embedding_models_and_cross_encoders_run_side_by_side(gateway: RunningGateway) -> None:
    for name, task in (("mpnet", "text_embedding"), ("ranker-bert", "rerank")):
        shown = gateway.add(name, source="local", model=str(DATA / name), task=task, precision="auto")
        assert shown["precision"] == "auto"
        assert shown["facts"]["precision"] in {"f32", "bf16"}
        assert gateway.request("GET", f"/hf/{name}/info").json()["model_dtype"] in {"float32", "bfloat16"}

    embedded = gateway.request("POST", "/v1/embeddings", {"model": "mpnet", "input": TEXTS}).json()
    for row, expected in zip(embedded["data"], ANSWERS["mpnet"]["vectors"][1:], strict=True):
        assert row["embedding"] == pytest.approx(expected, abs=1e-2)

    body = {"query": QUERY, "texts": TEXTS, "raw_scores": True, "truncate": True}
    ranked = gateway.request("POST", "/hf/ranker-bert/rerank", body).json()
    found = {row["index"]: row["score"] for row in ranked}
    assert [found[n] for n in range(len(TEXTS))] == pytest.approx(ANSWERS["ranker-bert"]["raw"][1:], abs=5e-2)

    metrics = gateway.request("GET", "/metrics").body.decode()
    if sys.platform == "linux":
        assert 'hubgate_local_model_bytes{model="mpnet"' in metrics
        assert 'hubgate_local_model_bytes{model="ranker-bert"' in metrics


def test_model_of_another_task_is_rejected_at_registration(gateway: RunningGateway) -> None:
    form = {"name": "wrong", "source": "local", "model": str(DATA / "ranker-bert")}
    refused = gateway.request("POST", "/api/endpoints", form)
    assert refused.status == 400
    assert "does rerank, not text_embedding" in refused.json()["error"]["message"]
