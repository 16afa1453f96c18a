"""No token is lost silently: chunks fit their model, and any truncation is counted and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from lookalikes import lookalike
from tokenizers import Tokenizer
from typer.testing import CliRunner

from hubgate.cli.main import app
from hubgate.upstreams.local.files import packaged

if TYPE_CHECKING:
    from commands import Command
    from running_gateway import RunningGateway

DOCS = Path(__file__).parents[3] / "docs"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
READY = "all-minilm-l6-v2"
LIMIT = 256
ELASTIC = {"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1}


@pytest.fixture
def minilm(gateway: RunningGateway) -> RunningGateway:
    gateway.add("minilm", source="local", model=MINILM)
    gateway.settle()
    return gateway


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    folder = packaged(MINILM)
    assert folder is not None
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.no_truncation()
    made.no_padding()
    return made


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def metric(gateway: RunningGateway, name: str) -> int:
    lines = gateway.request("GET", "/metrics").body.decode().splitlines()
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(f"{name}{{"))


def test_no_chunk_of_this_repositorys_documents_is_truncated(
    hubgate: Command, minilm: RunningGateway, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """With Elasticsearch's 250 words, 98 of 106 chunks were truncated: half of the text was in no vector."""
    folder, out = tmp_path / "docs", tmp_path / "out.parquet"
    folder.mkdir()
    for name in ("chunking.md", "jobs.md", "guide.zh.md"):  # all of them take a minute
        (folder / name).write_bytes((DOCS / name).read_bytes())
    ran = hubgate("job", "run", str(folder), str(out), "--endpoint", "minilm", "--chunk")
    assert ran.status == 0
    assert "longer than the model reads" not in ran.err
    assert ran.fields["truncated"] == "0"
    assert hubgate("job", "show", str(out)).fields["truncated"] == "0"
    assert metric(minilm, "hubgate_texts_truncated_total") == 0
    rows = pq.read_table(out).drop(["embedding"]).to_pylist()
    assert max(len(tokenizer.encode(row["text"]).ids) for row in rows) <= LIMIT
    assert {row["tokens_unread"] for row in rows} == {0}
    for file in folder.iterdir():
        text, read_to = file.read_text(), 0
        for row in (row for row in rows if row["id"] == file.name):
            assert row["start"] <= read_to, "nothing is left out between two chunks"
            assert row["text"] == text[row["start"] : row["end"]]
            read_to = row["end"]
        assert read_to == len(text)


def test_truncation_by_explicit_settings_is_counted_and_shown(
    hubgate: Command, minilm: RunningGateway, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    minilm.request("PATCH", "/api/endpoints/minilm", {"chunking_settings": ELASTIC})
    folder, out = tmp_path / "texts", tmp_path / "out.jsonl"
    folder.mkdir()
    (folder / "long.md").write_text("unimaginably " * 240)
    (folder / "short.md").write_text("short")
    ran = hubgate("job", "run", str(folder), str(out), "--endpoint", "minilm", "--chunk")
    unread = len(tokenizer.encode("unimaginably " * 240).ids) - LIMIT
    assert [(row["id"], row["tokens"], row["tokens_unread"]) for row in read(out)] == [
        ("long.md", LIMIT, unread),
        ("short.md", 3, 0),
    ]
    assert ran.status == 0
    assert ran.err.endswith(
        f"hubgate: 1 of 2 chunks are longer than the model reads: {unread:,} tokens are in no vector. "
        "Change the endpoint's chunking_settings.\n"
    )
    assert ran.fields["truncated"] == f"1 ({unread:,} tokens not read)"
    assert hubgate("job", "show", str(out)).fields["truncated"] == ran.fields["truncated"]
    assert metric(minilm, "hubgate_texts_truncated_total") == 1


def test_very_long_text_is_estimated_from_its_beginning(
    hubgate: Command, minilm: RunningGateway, tmp_path: Path
) -> None:
    texts, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts.write_text(json.dumps({"text": "word " * 300_000}) + "\n")
    ran = hubgate("job", "run", str(texts), str(out), "--endpoint", "minilm")
    assert ran.err.endswith("tokens are in no vector. Use --chunk to split them.\n")
    (row,) = read(out)
    assert row["tokens_unread"] == pytest.approx(300_000 - LIMIT, rel=0.001)
    assert minilm.service.registry.find("minilm").token_limit == LIMIT


def test_undetectable_truncation_is_reported_by_the_job_and_at_registration(
    hubgate: Command, gateway: RunningGateway, tmp_path: Path
) -> None:
    texts, out = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    texts.write_text(json.dumps({"text": "a text"}) + "\n")
    with lookalike("toolkit") as server:
        added = hubgate("add", "blind", "--url", server.url)
        assert "may be cut without notice" in added.out + added.err
        assert "Set [model] to the model's name on the Hub" in added.out + added.err
        ran = hubgate("job", "run", str(texts), str(out), "--endpoint", "blind")
    assert ran.status == 0
    assert ran.fields["truncated"] == "unknown"
    assert pq.read_table(out).column("tokens_unread").to_pylist() == [None]


@pytest.mark.parametrize("name", sorted(file.name for file in DOCS.glob("*.md")))
def test_chunk_route_returns_an_endpoints_chunks_without_its_model(
    local_gateway: RunningGateway, tokenizer: Tokenizer, name: str
) -> None:
    text = (DOCS / name).read_text()

    def places(**more: object) -> list[list[int]]:
        reply = local_gateway.request("POST", f"/api/endpoints/{READY}/chunk", {"text": text, **more})
        assert reply.status == 200, reply.body
        told: dict[str, list[list[int]]] = reply.json()
        assert [end - start for start, end in told["utf16"]] == [
            len(text[start:end].encode("utf-16-le")) // 2 for start, end in told["codepoints"]
        ]
        return told["codepoints"]

    fitting = places()
    assert max(len(tokenizer.encode(text[start:end]).ids) for start, end in fitting) <= LIMIT
    assert len(places(chunking_settings=ELASTIC)) < len(fitting)


def test_chunk_route_rejects_an_unknown_input_type(local_gateway: RunningGateway) -> None:
    form = {"text": "a", "input_type": "poem"}
    assert local_gateway.request("POST", f"/api/endpoints/{READY}/chunk", form).status == 400


def test_chunk_command_splits_like_an_endpoint(
    hubgate: Command, minilm: RunningGateway, tokenizer: Tokenizer
) -> None:
    assert hubgate("list").status == 0  # in the home of the gateway, where the runner below is, too
    text = (DOCS / "jobs.md").read_text()
    lines = [json.dumps({"text": text}), json.dumps({"text": text, "settings": ELASTIC}), '{"text": 5}']

    def answers(*options: str) -> list[dict[str, Any]]:
        ran = CliRunner().invoke(app, ["chunk", *options], input="\n".join(lines))
        return [json.loads(line) for line in ran.stdout.splitlines()]

    fitting, settled, wrong = answers("--endpoint", "minilm")
    assert max(len(tokenizer.encode(text[start:end]).ids) for start, end in fitting["codepoints"]) <= LIMIT
    assert wrong["error"].startswith("line 3: ")
    default, same, _ = answers()
    assert settled == default == same != fitting
    unknown = answers("--endpoint", "nobody")
    assert "No endpoint is named [nobody]" in unknown[0]["error"]
    assert minilm.service.registry.find("minilm").chunking is None
