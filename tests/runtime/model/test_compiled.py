"""The graph and the tokenizer, in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny_model import (
    MAX_TOKENS,
    WORDS,
    Array,
    ids_of,
    random_weights,
    reference,
    write_json,
    write_safetensors,
    write_tiny_model,
)

from hubgate.domain.calls import Token
from hubgate.domain.errors import Cause, InvalidRequest, RuntimeFailed
from hubgate.runtime.machine import available_cpus
from hubgate.runtime.model.compiled import CompiledModel
from hubgate.runtime.model.spec import read_model_spec
from hubgate.runtime.model.tokenizer import ModelInput, ModelTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXTS = ["w1", "w2 w3 w4 w5 w6 w7 w8 w9", "", "unknown w1", " ".join(WORDS[4:40])]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder of a tiny model, to be tampered with."""
    write_tiny_model(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_graph_computes_bert_and_ignores_padding(tmp_path: Path, pooling: str, prefix: str) -> None:
    weights = write_tiny_model(tmp_path, prefix=prefix)
    write_json(tmp_path / "1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": pooling})
    rows = [ids_of(text) for text in TEXTS]
    pooled, normalized = (
        CompiledModel(read_model_spec(tmp_path)).lanes[0].run([ModelInput(row) for row in rows])
    )
    expected = np.array([reference(weights, row, pooling) for row in rows])
    assert np.abs(pooled - expected).max() < 1e-5
    assert np.abs(normalized - expected / np.linalg.norm(expected, axis=1)[:, None]).max() < 1e-5


@pytest.mark.parametrize(
    "old",
    [
        lambda name: f"0.auto_model.{name}",
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ),
    ],
    ids=["whole model", "gamma and beta"],
)
def test_weights_under_other_names_are_read(tiny: Path, old: Callable[[str], str]) -> None:
    row = ModelInput(ids_of(TEXTS[1]))
    expected = CompiledModel(read_model_spec(tiny)).lanes[0].run([row])[0]
    weights = {old(name): tensor for name, tensor in random_weights().items()}
    assert weights.keys() != random_weights().keys()
    write_safetensors(tiny / "model.safetensors", weights)
    assert np.array_equal(CompiledModel(read_model_spec(tiny)).lanes[0].run([row])[0], expected)


def test_weights_in_bf16_are_read_exactly(tiny: Path) -> None:
    """Their values are those of f32 whose lower half is 0."""
    row = ModelInput(ids_of(TEXTS[1]))
    halves = {name: tensor.view(np.uint32) >> 16 for name, tensor in random_weights().items()}
    whole = {name: (half << 16).view(np.float32) for name, half in halves.items()}
    write_safetensors(tiny / "model.safetensors", whole)
    expected = CompiledModel(read_model_spec(tiny)).lanes[0].run([row])[0]
    write_safetensors(
        tiny / "model.safetensors", {name: half.astype(np.uint16) for name, half in halves.items()}
    )
    assert np.array_equal(CompiledModel(read_model_spec(tiny)).lanes[0].run([row])[0], expected)


def test_model_with_do_lower_case_reads_texts_in_lower_case(tiny: Path) -> None:
    tokenizer = json.loads((tiny / "tokenizer.json").read_bytes())
    tokenizer["normalizer"]["lowercase"] = False
    write_json(tiny / "tokenizer.json", tokenizer)
    write_json(tiny / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": True})
    tokens = CompiledModel(read_model_spec(tiny)).tokens
    rows, _ = tokens.rows(["W1 w2 W3"], truncate=False, left=False)
    assert rows == [ModelInput(ids_of("w1 w2 w3"))]
    assert [token.text for token in tokens.tokens(["W1 w2"], special=False)[0]] == ["W1", "w2"]


def test_padding_never_exceeds_model_positions(tmp_path: Path) -> None:
    weights = write_tiny_model(tmp_path)
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 61})
    places = weights["embeddings.position_embeddings.weight"][:61]
    write_safetensors(
        tmp_path / "model.safetensors", weights | {"embeddings.position_embeddings.weight": places}
    )
    row = ids_of(" ".join(WORDS[4:63]))
    pooled, _ = (
        CompiledModel(read_model_spec(tmp_path)).lanes[0].run([ModelInput(row), ModelInput(ids_of("w1"))])
    )
    assert len(row) == 61
    assert np.abs(pooled[0] - reference(weights, row)).max() < 1e-5


def test_half_precision_weights_are_computed_in_f32(tmp_path: Path) -> None:
    weights = write_tiny_model(tmp_path, kind="f2")
    halves: dict[str, Array] = {name: tensor.astype("f2") for name, tensor in weights.items()}
    pooled, _ = CompiledModel(read_model_spec(tmp_path)).lanes[0].run([ModelInput(ids_of("w1 w2"))])
    assert np.abs(pooled[0] - reference(halves, ids_of("w1 w2"))).max() < 1e-5


def test_truncation_length_in_tokenizer_file_is_ignored(tiny: Path) -> None:
    rows, cut = ModelTokenizer(read_model_spec(tiny)).rows(
        [" ".join(WORDS[4:20]), "w1"], truncate=True, left=False
    )
    assert [len(row.ids) for row in rows] == [18, 3]
    assert cut == [False, False]


@pytest.mark.parametrize("left", [False, True])
def test_truncation_uses_requested_side_and_keeps_special_tokens(tiny: Path, *, left: bool) -> None:
    words = WORDS[4:90]
    rows, cut = ModelTokenizer(read_model_spec(tiny)).rows(["w1", " ".join(words)], truncate=True, left=left)
    kept = words[-(MAX_TOKENS - 2) :] if left else words[: MAX_TOKENS - 2]
    assert rows == [ModelInput(ids_of("w1")), ModelInput(ids_of(" ".join(kept)))]
    assert cut == [False, True]


def test_long_text_without_truncation_is_rejected_with_index_and_length(tiny: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"Text 1 has 62 tokens; the model reads at most 48\.") as failed:
        ModelTokenizer(read_model_spec(tiny)).rows(["w1", "w2 " * 60, "w3 " * 70], truncate=False, left=False)
    assert failed.value.cause is Cause.INPUT_TOO_LONG


def test_tokens_have_code_point_offsets_and_their_text(tiny: Path) -> None:
    tokens = ModelTokenizer(read_model_spec(tiny))
    assert tokens.tokens(["🚀 W1"], special=True) == [
        [
            Token(2, "[CLS]", True, None, None),
            Token(1, "🚀", False, 0, 1),
            Token(WORDS.index("w1"), "W1", False, 2, 4),
            Token(3, "[SEP]", True, None, None),
        ]
    ]
    assert [token.id for token in tokens.tokens(["w1"], special=False)[0]] == [WORDS.index("w1")]


def test_unreadable_tokenizer_is_rejected(tiny: Path) -> None:
    (tiny / "tokenizer.json").write_text("{}")
    _refused(tiny, "tokenizer.json cannot be read")


def test_tokenizer_of_another_model_is_rejected(tiny: Path) -> None:
    tokenizer = json.loads((tiny / "tokenizer.json").read_bytes())
    tokenizer["model"]["vocab"]["one more"] = len(WORDS)
    write_json(tiny / "tokenizer.json", tokenizer)
    _refused(tiny, r"its tokenizer has more tokens \(101\) than its weights \(100\)")


def test_truncated_weights_are_rejected(tiny: Path) -> None:
    weights = (tiny / "model.safetensors").read_bytes()
    for size in (0, 4, 20, 2000, len(weights) - 1):
        (tiny / "model.safetensors").write_bytes(weights[:size])
        _refused(tiny, "is not a complete safetensors file")


def test_weights_that_cannot_be_opened_are_rejected(tiny: Path) -> None:
    spec = read_model_spec(tiny)
    (tiny / "model.safetensors").unlink()
    with pytest.raises(RuntimeFailed, match="cannot be read: No such file"):
        CompiledModel(spec)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("encoder.layer.1.output.dense.bias", "its weights have no encoder.layer.1.output.dense.bias"),
        ("embeddings.word_embeddings.weight", "its weights have no embeddings.word_embeddings.weight"),
    ],
)
def test_missing_weight_is_rejected_by_name(tiny: Path, name: str, reason: str) -> None:
    weights = random_weights()
    del weights[name]
    write_safetensors(tiny / "model.safetensors", weights)
    _refused(tiny, reason)


def test_weight_of_wrong_shape_is_rejected(tiny: Path) -> None:
    weights = random_weights()
    weights["encoder.layer.0.output.dense.bias"] = np.zeros(7, np.float32)
    write_safetensors(tiny / "model.safetensors", weights)
    _refused(tiny, r"its weight encoder.layer.0.output.dense.bias has the shape \[7\]")


def test_container_cpu_quota_limits_threads(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    everything = available_cpus(quota)
    quota.write_text("max 100000\n")
    assert available_cpus(quota) == everything
    quota.write_text("50000 100000\n")
    assert available_cpus(quota) == 1


def _refused(folder: Path, reason: str) -> None:
    with pytest.raises(RuntimeFailed, match=reason) as failed:
        CompiledModel(read_model_spec(folder))
    assert failed.value.cause is Cause.MODEL_UNUSABLE
