"""`/api/jobs`: an admin sees, cancels and resumes the batches of all keys."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import openai
import pytest
from batch_files import batch_input, create_batch, lines_of, texts, wait_for_end
from lookalikes import lookalike
from running_gateway import eventually

if TYPE_CHECKING:
    from running_gateway import RunningGateway


def test_jobs_have_progress_and_are_cancelled_and_resumed(gateway: RunningGateway) -> None:
    key = gateway.create_key("app")
    with (
        lookalike("tei", dimensions=8) as server,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client,
    ):
        gateway.add("slow", url=server.url, rate_limit={"requests_per_minute": 6})
        batch = create_batch(client, batch_input([*texts(400, "slow"), {"model": "nowhere", "input": "x"}]))
        path = f"/api/jobs/{batch.id}"
        eventually(lambda: 0 < gateway.request("GET", path).json()["completed"] < 400)
        job = gateway.request("GET", path).json()
        assert (job["kind"], job["key_name"], job["model"], job["total"]) == ("batch", "app", "slow", 401)
        assert job["rate"] > 0
        assert job["remaining_seconds"] > 0
        assert gateway.request("POST", f"{path}/resume").status == 400
        cancelled = gateway.request("POST", f"{path}/cancel").json()
        assert cancelled["status"] in {"cancelling", "cancelled"}
        wait_for_end(client, batch)
        answered = gateway.request("GET", path).json()["completed"]
        assert 0 < answered < 400
        sent = sum(map(len, server.batches))

        raised = {"rate_limit": {"requests_per_minute": 6000}}
        assert gateway.request("PATCH", "/api/endpoints/slow", raised).status == 200
        assert gateway.request("POST", f"{path}/resume").json()["status"] == "in_progress"
        done = wait_for_end(client, batch)
        assert done.status == "completed"
        assert done.request_counts is not None
        assert (done.request_counts.completed, done.request_counts.failed) == (400, 1)
        lines = lines_of(client, done.output_file_id)
        assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(400)]
        assert sum(map(len, server.batches)) - sent <= 400 - answered + 64

        listed = gateway.request("GET", "/api/jobs?limit=1").json()["jobs"]
        assert [one["id"] for one in listed] == [batch.id]
        assert gateway.request("GET", f"/api/jobs?after={batch.id}").json() == {"jobs": []}
        changes = gateway.request("GET", "/api/audit").json()["changes"]
        assert {"job.cancel", "job.resume"} <= {change["verb"] for change in changes}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_only_an_admin_key_sees_all_jobs(gateway: RunningGateway, method: str) -> None:
    key = gateway.create_key("app")
    path = "/api/jobs" if method == "GET" else "/api/jobs/batch_1/cancel"
    assert gateway.request(method, path, key=key).status == 403
    assert gateway.request("GET", "/api/jobs/batch_1").status == 404
    assert gateway.request("GET", "/api/jobs?limit=0").status == 400


def test_a_batch_that_is_all_answered_cannot_be_resumed(gateway: RunningGateway) -> None:
    gateway.add("words", dimensions=8)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.admin_key) as client:
        done = wait_for_end(client, create_batch(client, batch_input(texts(1))))
        refused = gateway.request("POST", f"/api/jobs/{done.id}/resume")
        assert refused.json()["error"]["cause"] == "conflict"
        assert time.time() - gateway.request("GET", f"/api/jobs/{done.id}").json()["ended_at"] < 60


def test_a_batch_is_estimated_before_it_is_created(gateway: RunningGateway) -> None:
    with (
        lookalike("tei", dimensions=8) as server,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.admin_key) as client,
    ):
        gateway.add("e5", url=server.url, rate_limit={"requests_per_minute": 600})
        cached = {"model": "e5", "input": [f"text number {n}" for n in range(40)]}
        assert gateway.request("POST", "/v1/embeddings", cached).status == 200
        sent = len(server.batches)
        bodies = [*texts(100, "e5"), {"model": "e5", "input": ""}, {"model": "nowhere", "input": "x"}]
        file = client.files.create(file=("in.jsonl", batch_input(bodies)), purpose="batch")
        found = gateway.request("POST", "/api/jobs/estimate", {"input_file_id": file.id}).json()
        assert len(server.batches) == sent
        assert (found["path"], found["requests"], found["faults"]) == ("/v1/embeddings", 102, [])
        model, nowhere = found["models"]
        assert (nowhere["model"], nowhere["requests"], nowhere["estimate"]) == ("nowhere", 1, None)
        assert "nowhere" in nowhere["message"]
        estimate = model["estimate"]
        assert (model["requests"], estimate["sampled_rows"]) == (101, 101)
        for name, exact in (("vectors", 100), ("cached", 40), ("rejected", 1)):
            assert estimate[name] == {"value": exact, "error": 0}, name
        assert estimate["limited_by"] == "requests_per_minute"
        done = wait_for_end(client, create_batch(client, batch_input(bodies)))
        assert done.request_counts is not None
        assert (done.request_counts.completed, done.request_counts.failed) == (100, 2)
        assert sum(map(len, server.batches[sent:])) == 60

        broken = client.files.create(file=("in.jsonl", b'{"custom_id": 1}\n'), purpose="batch")
        found = gateway.request("POST", "/api/jobs/estimate", {"input_file_id": broken.id}).json()
        assert [(fault["line"], fault["code"]) for fault in found["faults"]] == [(1, "invalid_request")]
        assert found["models"] == []
        unknown = gateway.request("POST", "/api/jobs/estimate", {"input_file_id": "file-1"})
        assert unknown.status == 404
