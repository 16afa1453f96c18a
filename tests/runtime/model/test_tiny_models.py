"""One small model of random weights for each recommended architecture, held against transformers.

`tests/data/tiny_models` is written by `scripts/record_tiny_models.py`: the models, and what sentence-transformers and
its CrossEncoder answered.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_model import write_json

from hubgate.domain.calls import Embed, Rerank, Scores, SparseEmbed, Vectors
from hubgate.domain.endpoint import Endpoint, Precision, Source, Target, Task
from hubgate.domain.errors import Cause, InvalidEndpoint, InvalidRequest, RuntimeFailed
from hubgate.runtime.model.compiled import CompiledModel
from hubgate.runtime.model.heads import RankingHead
from hubgate.runtime.model.spec import read_model_spec
from hubgate.runtime.model.tokenizer import ModelTokenizer
from hubgate.upstreams.local.source import LocalSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DATA = Path(__file__).parents[2] / "data" / "tiny_models"
RECORDED = json.loads((DATA / "answers.json").read_text("utf-8"))
TEXTS, QUERY, ANSWERS = RECORDED["texts"], RECORDED["query"], RECORDED["answers"]
EMBEDDERS = [name for name, answer in ANSWERS.items() if "vectors" in answer]
RANKERS = [name for name in ANSWERS if name not in EMBEDDERS]
TOLERANCE = 1e-5


def endpoint(folder: Path, task: Task, precision: Precision = Precision.F32) -> Endpoint:
    return Endpoint(name="tiny", task=task, source=Source.LOCAL, model=str(folder), precision=precision)


@pytest.fixture
async def source() -> AsyncIterator[LocalSource]:
    source = LocalSource()
    yield source
    await source.close()


@pytest.mark.parametrize("name", EMBEDDERS)
async def test_vectors_match_transformers(source: LocalSource, name: str) -> None:
    upstream = source.open(Target(endpoint(DATA / name, Task.TEXT_EMBEDDING)))
    result = await upstream(Embed(texts=TEXTS))
    assert isinstance(result, Vectors)
    found = np.array([np.frombuffer(item, "<f4") for item in result.items])
    assert np.abs(found - np.array(ANSWERS[name]["vectors"])).max() < TOLERANCE


@pytest.mark.parametrize("name", RANKERS)
async def test_scores_match_transformers(source: LocalSource, name: str) -> None:
    upstream = source.open(Target(endpoint(DATA / name, Task.RERANK)))
    own = await scores(upstream(Rerank(query=QUERY, texts=TEXTS)))
    raw = await scores(upstream(Rerank(query=QUERY, texts=TEXTS, raw_scores=True)))
    squeezed = await scores(upstream(Rerank(query=QUERY, texts=TEXTS, raw_scores=False)))
    expected = np.array(ANSWERS[name]["raw"])
    assert own.items == squeezed.items, "between 0 and 1, whatever activation the model's files name"
    assert np.abs(np.array(raw.items) - expected).max() < TOLERANCE
    assert np.abs(np.array(squeezed.items) - 1 / (1 + np.exp(-expected))).max() < TOLERANCE
    assert own.exact
    assert own.warnings[0].endswith("of 8 texts were truncated to the model's limit.")
    assert not (await scores(upstream(Rerank(query="a", texts=["gate"])))).warnings
    with pytest.raises(InvalidRequest, match="and the query have more than the 48 tokens") as failed:
        await upstream(Rerank(query=QUERY, texts=TEXTS, truncate=False))
    assert failed.value.cause is Cause.INPUT_TOO_LONG


async def scores(answer: Any) -> Scores:
    result = await answer
    assert isinstance(result, Scores)
    return result


def test_onnx_graph_and_graph_from_weights_give_same_vectors(tmp_path: Path) -> None:
    both = read_model_spec(DATA / "bert")
    shutil.copytree(DATA / "bert", tmp_path / "bert")
    (tmp_path / "bert" / "model.safetensors").unlink()
    only = read_model_spec(tmp_path / "bert")
    assert (both.weights.name, only.weights.name) == ("model.safetensors", "model.onnx")
    models = [CompiledModel(spec) for spec in (both, only)]
    rows, _ = models[0].tokens.rows(TEXTS, truncate=True, left=False)
    built, read = (model.lanes[0].run(rows) for model in models)
    assert max(np.abs(one - other).max() for one, other in zip(built, read, strict=True)) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "task", "able"),
    [("bert", Task.RERANK, "text_embedding"), ("ranker-bert", Task.TEXT_EMBEDDING, "rerank")],
)
async def test_model_is_registered_only_for_its_own_task(
    source: LocalSource, name: str, task: Task, able: str
) -> None:
    with pytest.raises(InvalidEndpoint, match=f"{name} does {able}, not {task}") as failed:
        await source.detect(Target(endpoint(DATA / name, task)))
    assert failed.value.cause is Cause.WRONG_TASK
    facts = await source.detect(Target(endpoint(DATA / name, Task(able))))
    assert (facts.max_input_tokens, facts.precision) == (48, "f32")


async def test_model_answers_only_calls_of_its_task(source: LocalSource) -> None:
    embedder = source.open(Target(endpoint(DATA / "bert", Task.TEXT_EMBEDDING)))
    ranker = source.open(Target(endpoint(DATA / "ranker-bert", Task.RERANK)))
    with pytest.raises(InvalidRequest, match="cannot rerank"):
        await embedder(Rerank(query="a", texts=["b"]))
    with pytest.raises(InvalidRequest, match="returns no vectors"):
        await ranker(Embed(texts=["a"]))
    with pytest.raises(InvalidRequest, match="do not support sparse_embedding"):
        await embedder(SparseEmbed(texts=["a"]))
    assert (await scores(ranker(Rerank(query="a", texts=[])))).items == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden_size": 12}, "do not give the same number of dimensions"),
        ({"vocab_size": 20}, "its tokenizer has more tokens (81) than its weights (20)"),
        ({"num_hidden_layers": 1}, "its weights have more than 1 layers"),
        ({"num_hidden_layers": 3}, "its weights have no encoder.layer.2"),
        ({"max_position_embeddings": 500, "vocab_size": 900}, None),
    ],
)
def test_weights_that_contradict_config_are_rejected(
    tmp_path: Path, change: dict[str, Any], reason: str | None
) -> None:
    folder = tampered("bert", tmp_path, change)
    if reason is None:
        assert CompiledModel(read_model_spec(folder)).precision == "f32"
    else:
        assert reason in refusal(folder)


def test_graph_with_dimensions_other_than_config_is_rejected(tmp_path: Path) -> None:
    folder = tampered("mpnet", tmp_path, {"hidden_size": 12})
    pooling = json.loads((folder / "1_Pooling/config.json").read_bytes())
    write_json(folder / "1_Pooling/config.json", pooling | {"embedding_dimension": 12})
    assert "model.onnx gives 16 numbers, the other files say 12" in refusal(folder)


@pytest.mark.parametrize("size", [0, 100, 40_000])
def test_truncated_graph_is_rejected(tmp_path: Path, size: int) -> None:
    folder = tampered("mpnet", tmp_path, {})
    graph = (folder / "onnx/model.onnx").read_bytes()
    (folder / "onnx/model.onnx").write_bytes(graph[:size])
    assert "model.onnx" in refusal(folder)


def test_graph_for_another_task_is_rejected(tmp_path: Path) -> None:
    folder = tampered("xlm-roberta", tmp_path, {})
    shutil.copy(DATA / "ranker-xlm-roberta" / "onnx" / "model.onnx", folder / "onnx" / "model.onnx")
    assert "model.onnx has no output named last_hidden_state" in refusal(folder)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (None, True),
        (["input_ids", "token_type_ids", "attention_mask"], True),
        (["input_ids", "attention_mask"], False),
    ],
)
def test_cross_encoder_gets_token_types_unless_tokenizer_omits_them(
    tmp_path: Path, names: list[str] | None, told: bool
) -> None:
    folder = tampered("ranker-bert", tmp_path, {})
    said = json.loads((folder / "tokenizer_config.json").read_bytes())
    said.pop("model_input_names", None)
    write_json(folder / "tokenizer_config.json", said | ({"model_input_names": names} if names else {}))
    tokens = ModelTokenizer(read_model_spec(folder))
    (row,), _ = tokens.pairs(tokens.query("a query"), ["a text"], truncate=True)
    assert (row.kinds is not None and 1 in row.kinds) is told


def test_model_without_weights_or_graph_is_rejected(tmp_path: Path) -> None:
    folder = tampered("mpnet", tmp_path, {})
    (folder / "onnx/model.onnx").unlink()
    assert "another model_type than 'bert', the only one that can be built from weights" in refusal(folder)
    assert "there is no onnx/model.onnx" in refusal(folder)


@pytest.mark.parametrize(
    ("config", "own"),
    [
        ({}, None),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, None),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, None),
        ({}, "torch.nn.modules.linear.Identity"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}},
            "torch.nn.modules.activation.Sigmoid",
        ),
    ],
)
def test_cross_encoder_with_sigmoid_or_no_activation_is_accepted(
    tmp_path: Path, config: dict[str, Any], own: str | None
) -> None:
    folder = tampered("ranker-bert", tmp_path, config)
    write_json(folder / "config_sentence_transformers.json", {"activation_fn": own} if own else {})
    assert read_model_spec(folder).head == RankingHead()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"id2label": {"0": "no", "1": "yes"}}, "sorts texts into 2 classes"),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}},
            "an activation that is not supported",
        ),
    ],
)
def test_unsupported_cross_encoder_is_rejected(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    folder = tampered("ranker-bert", tmp_path, config)
    (folder / "config_sentence_transformers.json").unlink()
    assert reason in refusal(folder)


def tampered(name: str, into: Path, config: dict[str, Any]) -> Path:
    """A copy of a model with another `config.json`."""
    folder = into / name
    shutil.copytree(DATA / name, folder)
    write_json(folder / "config.json", json.loads((folder / "config.json").read_bytes()) | config)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(RuntimeFailed) as failed:
        CompiledModel(read_model_spec(folder))
    assert failed.value.cause is Cause.MODEL_UNUSABLE
    return failed.value.message
