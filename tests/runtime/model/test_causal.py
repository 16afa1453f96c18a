"""Rerankers that are language models, held against transformers.

`tests/data/tiny_rerankers` is written by `scripts/record_tiny_rerankers.py`: a small model of random weights for each
prompt, and the scores that transformers gives each prompt alone.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_model import write_causal_ranker, write_json

from hubgate.core.rerank_templates import rerank_template
from hubgate.domain.calls import Rerank, Scores
from hubgate.domain.endpoint import Endpoint, Source, Target, Task
from hubgate.domain.errors import Cause, InvalidRequest, RuntimeFailed
from hubgate.runtime.model.causal import with_score
from hubgate.runtime.model.compiled import CompiledModel
from hubgate.runtime.model.graph import read_graph, with_head
from hubgate.runtime.model.spec import read_model_spec
from hubgate.runtime.model.tokenizer import ModelTokenizer
from hubgate.upstreams.local.source import LocalSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DATA = Path(__file__).parents[2] / "data" / "tiny_rerankers"
RECORDED = json.loads((DATA / "answers.json").read_text("utf-8"))
QUERY, TEXTS, ANSWERS = RECORDED["query"], RECORDED["texts"], RECORDED["answers"]
TOLERANCE = 1e-5


def endpoint(folder: Path) -> Endpoint:
    return Endpoint(name="tiny", task=Task.RERANK, source=Source.LOCAL, model=str(folder))


@pytest.fixture
async def source() -> AsyncIterator[LocalSource]:
    source = LocalSource()
    yield source
    await source.close()


async def scores(answer: Any) -> Scores:
    result = await answer
    assert isinstance(result, Scores)
    return result


@pytest.mark.parametrize("name", ANSWERS)
async def test_scores_match_transformers(source: LocalSource, name: str) -> None:
    """The texts have different lengths, so they are padded in batches."""
    target = Target(endpoint(DATA / name))
    facts = await source.detect(target)
    template = rerank_template(name)
    assert template is not None
    assert facts.rerank_template == template.name
    upstream = source.open(target)
    expected = np.array(ANSWERS[name]["raw"])
    raw = await scores(upstream(Rerank(query=QUERY, texts=TEXTS, raw_scores=True)))
    assert np.abs(np.array(raw.items) - expected).max() < TOLERANCE
    own = await scores(upstream(Rerank(query=QUERY, texts=TEXTS)))
    assert np.abs(np.array(own.items) - 1 / (1 + np.exp(-expected))).max() < TOLERANCE
    assert own.warnings == ("1 of 6 texts were truncated to the model's limit.",)
    if ANSWERS[name]["instructed"]:
        call = Rerank(query=QUERY, texts=TEXTS, raw_scores=True, instruction=RECORDED["instruction"])
        found = await scores(upstream(call))
        assert np.abs(np.array(found.items) - ANSWERS[name]["instructed"]).max() < TOLERANCE
        assert np.abs(np.array(found.items) - expected).max() > 100 * TOLERANCE


async def test_text_or_query_that_is_too_long_is_refused(source: LocalSource) -> None:
    upstream = source.open(Target(endpoint(DATA / "zerank-2")))
    with pytest.raises(InvalidRequest, match="Text 5 and the query have more than the 1024 tokens") as failed:
        await upstream(Rerank(query=QUERY, texts=TEXTS, truncate=False))
    assert failed.value.cause is Cause.INPUT_TOO_LONG
    with pytest.raises(InvalidRequest, match="leave no room for a text"):
        await upstream(Rerank(query="boats " * 300, texts=["a"]))
    assert (await scores(upstream(Rerank(query=QUERY, texts=[])))).items == []


@pytest.mark.parametrize("cache", ["states", "inputs"])
def test_graph_that_keeps_a_cache_scores_each_batch_afresh(tmp_path: Path, cache: str) -> None:
    folder = write_causal_ranker(tmp_path / "Qwen3-Reranker-tiny", cache=cache)
    model = CompiledModel(read_model_spec(folder))
    template = rerank_template("Qwen3-Reranker-tiny")
    assert template is not None
    rows, _ = model.tokens.prompts(template, "ship", ["ship", "ship port", "port"], truncate=True)
    together = model.lanes[0].run(rows)[0]
    again = np.concatenate([model.lanes[0].run([row])[0] for row in rows])
    assert together.shape == (3, 1)
    assert np.array_equal(together, again)
    assert together[0] > together[2]


def test_logits_are_computed_for_the_last_token_alone() -> None:
    spec = read_model_spec(DATA / "Qwen3-Reranker-tiny")
    template = rerank_template("Qwen3-Reranker-tiny")
    assert template is not None
    whole = read_graph(spec)
    assert str(whole.output.get_partial_shape()[1]) == "?"
    graph = with_head(with_score(whole, template, ModelTokenizer(spec), spec.folder), spec)
    graph.validate_nodes_and_infer_types()
    widths = [
        node.get_output_partial_shape(0) for node in graph.get_ops() if node.get_type_name() == "MatMul"
    ]
    (logits,) = [shape for shape in widths if shape[-1] == spec.vocabulary]
    assert str(logits[1]) == "1"


def test_limit_is_that_of_the_model_card(tmp_path: Path) -> None:
    folder = tampered(tmp_path, {"max_position_embeddings": 40_960})
    assert read_model_spec(folder).max_tokens == 8192


def test_model_is_recognized_by_its_repository_in_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "models--Qwen--Qwen3-Reranker-0.6B" / "snapshots" / ("a" * 40)
    folder.parent.mkdir(parents=True)
    shutil.copytree(DATA / "zerank-2", folder)
    template = getattr(read_model_spec(folder).head, "template", None)
    assert template is rerank_template("Qwen3-Reranker-0.6B")


def test_language_model_without_a_known_prompt_is_rejected(tmp_path: Path) -> None:
    shutil.copytree(DATA / "zerank-2", tmp_path / "some-llm")
    with pytest.raises(RuntimeFailed, match=r"modules\.json is missing"):
        read_model_spec(tmp_path / "some-llm")


def test_tokenizer_without_the_answers_is_rejected(tmp_path: Path) -> None:
    folder = tampered(tmp_path, {})
    content = json.loads((folder / "tokenizer.json").read_bytes())
    content["model"]["merges"] = content["model"]["merges"][:1]
    del content["model"]["vocab"]["yes"]
    write_json(folder / "tokenizer.json", content)
    with pytest.raises(RuntimeFailed, match="has no token 'yes'"):
        CompiledModel(read_model_spec(folder))


def tampered(into: Path, config: dict[str, Any]) -> Path:
    folder = into / "Qwen3-Reranker-tiny"
    shutil.copytree(DATA / "Qwen3-Reranker-tiny", folder)
    write_json(folder / "config.json", json.loads((folder / "config.json").read_bytes()) | config)
    return folder
