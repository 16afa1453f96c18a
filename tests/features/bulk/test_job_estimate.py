"""`hubgate job estimate` and `hubgate job run --dry-run`, compared with the runs of the same jobs."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lookalikes import lookalike
from tiny_model import MAX_TOKENS, write_tiny_model

from hubgate.features.bulk.folder import JobFolder

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Command
    from running_gateway import RunningGateway

ROWS = 600


@pytest.fixture
def tiny(gateway: RunningGateway, tmp_path: Path) -> RunningGateway:
    """A gateway with a small model on this machine, whose tokens are words."""
    write_tiny_model(tmp_path / "tiny")
    gateway.add("tiny", source="local", model=str(tmp_path / "tiny"))
    return gateway


def text(chosen: random.Random) -> str:
    words = chosen.choices(range(96), k=min(int(chosen.lognormvariate(2.5, 0.8)) + 1, 200))
    return ". ".join(f"w{word}" for word in words)


def write_rows(path: Path, rows: int = ROWS) -> Path:
    """Rows of many lengths, some of which have no text."""
    chosen = random.Random(6)
    lines = [json.dumps({"id": f"r{n}", "text": text(chosen)}) for n in range(rows)]
    lines[10:13] = ['{"id":"r10","text":""}', '{"id":"r11","text":null}', "not JSON"]
    path.write_text("\n".join(lines))
    return path


def estimate(hubgate: Command, source: Path, *options: str) -> dict[str, Any]:
    done = hubgate("job", "estimate", str(source), "--json", *options)
    assert (done.status, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    return found


def requests(gateway: RunningGateway, name: str) -> int:
    rows = gateway.request("GET", "/api/usage?by=endpoint").json()["rows"]
    return sum(row["requests"] for row in rows if row["endpoint"] == name)


def test_estimate_of_all_rows_equals_the_run(hubgate: Command, tiny: RunningGateway, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl")
    options = ["--endpoint", "tiny", "--id-field", "id", "--rows-per-request", "50"]
    for out in (tmp_path / "whole.jsonl", tmp_path / "chunks.jsonl"):
        before = requests(tiny, "tiny")
        found = estimate(hubgate, source, *options)
        assert requests(tiny, "tiny") == before
        assert hubgate("job", "run", str(source), str(out), *options).status == 1
        ran = JobFolder(out).totals()
        assert ran.exact
        assert found["rows"] == ran.rows == ROWS
        assert found["refused"] == {"empty_text": 1, "null_text": 1, "not_json": 1}
        assert found["sampled_rows"] == ROWS - ran.failed
        assert found["requests"] == requests(tiny, "tiny") - before
        assert found["tokens_counted"]
        for name, exact in (("vectors", ran.pieces), ("tokens", ran.tokens), ("over_limit", ran.truncated)):
            assert found[name] == {"value": exact, "error": 0}, name
        assert (ran.truncated > 0) is ("--chunk" not in options)
        options += ["--chunk"]


def test_run_is_within_the_error_of_a_sample(hubgate: Command, tiny: RunningGateway, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    chosen = random.Random(7)
    pq.write_table(pa.table({"text": [text(chosen) for _ in range(1000)]}), source)
    options = ["--endpoint", "tiny"]
    for out in (tmp_path / "whole.parquet", tmp_path / "chunks.parquet"):
        before = requests(tiny, "tiny")
        found = estimate(hubgate, source, *options, "--sample", "250")
        assert hubgate("job", "run", str(source), str(out), *options).status == 0
        ran = JobFolder(out).totals()
        assert (found["rows"], found["requests"]) == (1000, requests(tiny, "tiny") - before)
        assert found["sampled_rows"] < 300
        for name, exact in (("vectors", ran.pieces), ("tokens", ran.tokens), ("over_limit", ran.truncated)):
            total = found[name]
            assert abs(total["value"] - exact) <= total["error"], name
            assert total["error"] <= 0.1 * exact + 30, name
        options += ["--chunk"]


def test_requests_time_and_cost_follow_from_the_limits_of_the_endpoint(
    hubgate: Command, gateway: RunningGateway, tmp_path: Path
) -> None:
    source = write_rows(tmp_path / "in.jsonl")
    with lookalike("tei", dimensions=8, max_batch=32) as server:
        gateway.add("e5", url=server.url, rate_limit={"requests_per_minute": 600})
        registered = len(server.batches)
        found = estimate(hubgate, source, "--endpoint", "e5", "--price-per-million-tokens", "1000")
        assert len(server.batches) == registered
        assert hubgate("job", "run", str(source), str(tmp_path / "o.jsonl"), "--endpoint", "e5").status == 1
        sent = len(server.batches) - registered
    assert found["model_requests"] == sent == 19
    assert (found["limited_by"], found["seconds"]) == ("requests_per_minute", 1.9)
    assert (found["tokens_counted"], found["over_limit"]) == (False, None)
    assert found["dollars"] == pytest.approx(found["tokens"]["value"] / 1000, rel=0.01)


def test_rows_in_the_cache_are_neither_requested_nor_paid_for_with_cache(
    hubgate: Command, tiny: RunningGateway, tmp_path: Path
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": f"w{n}"}) + "\n" for n in range(40)))
    body = {"model": "tiny", "input": [f"w{n}" for n in range(10)], "input_type": "document"}
    assert tiny.request("POST", "/v1/embeddings", body).status == 200
    options = ("--endpoint", "tiny", "--price-per-million-tokens", "1000000")
    found = estimate(hubgate, source, *options, "--cache")
    assert found["cached"] == {"value": 10, "error": 0}
    assert (found["tokens"]["value"], found["dollars"]) == (120, 90)
    shown = hubgate("job", "estimate", str(source), *options).fields
    assert shown["in the vector cache"] == "10 rows; used with --cache only"
    assert shown["cost"] == "about 120.0000"


def test_dry_run_prints_the_estimate_and_writes_nothing(
    hubgate: Command, tiny: RunningGateway, tmp_path: Path
) -> None:
    source, out = write_rows(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    dry = hubgate("job", "run", str(source), str(out), "--endpoint", "tiny", "--chunk", "--dry-run")
    assert (dry.status, dry.err) == (0, "")
    assert dry.out == hubgate("job", "estimate", str(source), "--endpoint", "tiny", "--chunk").out
    assert dry.fields["rows not sent"] == "empty_text 1, null_text 1, not_json 1"
    assert not list(tmp_path.glob("out*"))
    assert requests(tiny, "tiny") == 0


def test_estimate_starts_a_gateway_when_none_runs(hubgate: Command, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl")
    assert hubgate("job", "estimate", str(source), "--endpoint", "words").status == 1
    assert hubgate("add", "words", "--fake").status == 0
    found = estimate(hubgate, source, "--endpoint", "words")
    assert (found["rows"], found["vectors"]["value"]) == (ROWS, ROWS - 3)
    unknown = hubgate("job", "estimate", str(source), "--endpoint", "nothing")
    assert unknown.status == 1
    assert "nothing" in unknown.err


def test_a_text_that_is_too_large_for_a_request_is_counted(
    hubgate: Command, tiny: RunningGateway, tmp_path: Path
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{"text": "w1 w2"}, {"text": "w3 " * 2_100_000}, {"text": "w4"}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--endpoint", "tiny", "--chunk")
    found = estimate(hubgate, source, *options)
    assert found["rejected"] == {"value": 1, "error": 0}
    assert hubgate("job", "run", str(source), str(out), *options).status == 1
    ran = JobFolder(out).totals()
    assert (ran.failed, found["vectors"]["value"], found["tokens"]["value"]) == (1, ran.pieces, ran.tokens)
    assert ran.tokens < MAX_TOKENS
