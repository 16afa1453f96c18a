"""The self-test of a model when it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_model import random_weights, write_json, write_safetensors, write_tiny_model

from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import RuntimeFailed
from hubgate.runtime.model.compiled import CompiledModel
from hubgate.runtime.model.selftest import choose_precision, encode_samples, find_fault, same_outputs
from hubgate.runtime.model.spec import read_model_spec
from hubgate.runtime.model.tokenizer import ModelInput, ModelTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.runtime.model.spec import ModelSpec

RANKER = Path(__file__).parents[2] / "data" / "tiny_models" / "ranker-bert"
KNOWN = [ModelInput([2, 5, 3]), ModelInput([2, 6, 7, 3])]


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    write_tiny_model(tmp_path)
    return read_model_spec(tmp_path)


class Scripted:
    """A model whose vectors are off by a given amount, and by a further amount in a batch."""

    def __init__(self, off: float = 0.0, company: float = 0.0) -> None:
        self.off, self.company = off, company

    def run(self, rows: Sequence[ModelInput]) -> list[np.ndarray[Any, Any]]:
        off = self.off + (self.company if len(rows) > 1 else 0.0)
        return [np.array([[1.0, off, 0.0] for _ in rows])]


@pytest.mark.parametrize(
    ("asked", "has_bf16", "off", "chosen"),
    [
        (Precision.F32, True, 0.0, Precision.F32),
        (Precision.BF16, True, 0.5, Precision.BF16),
        (Precision.AUTO, False, 0.0, Precision.F32),
        (Precision.AUTO, True, 0.031, Precision.BF16),  # cosine 0.99952
        (Precision.AUTO, True, 0.032, Precision.F32),  # cosine 0.99949
    ],
)
def test_auto_uses_bf16_only_with_cpu_support_and_same_vectors(
    spec: ModelSpec, asked: Precision, off: float, chosen: Precision, *, has_bf16: bool
) -> None:
    models = {Precision.F32: [Scripted()], Precision.BF16: [Scripted(off)]}
    found = choose_precision(asked, models.__getitem__, spec, KNOWN, has_bf16=has_bf16)
    assert found == (chosen, models[chosen], None)


def test_int8_passes_with_a_cosine_of_0_999(spec: ModelSpec) -> None:
    models = {Precision.F32: [Scripted()], Precision.INT8: [Scripted(0.0447)]}
    found = choose_precision(Precision.INT8, models.__getitem__, spec, KNOWN, has_bf16=False)
    assert found == (Precision.INT8, models[Precision.INT8], 0.999)
    models[Precision.INT8] = [Scripted(0.045)]  # cosine 0.99899
    with pytest.raises(RuntimeFailed, match=r"f32 is 0\.9990, and at least 0\.999 is required"):
        choose_precision(Precision.INT8, models.__getitem__, spec, KNOWN, has_bf16=False)


def test_bf16_is_rejected_without_cpu_support(spec: ModelSpec) -> None:
    with pytest.raises(RuntimeFailed, match="this machine's processor does not support it") as failed:
        choose_precision(Precision.BF16, lambda _: [Scripted()], spec, KNOWN, has_bf16=False)
    assert "auto or f32" in failed.value.remedy


def test_scores_are_equal_within_ranking_tolerance() -> None:
    ranker = read_model_spec(RANKER)
    scores = np.array([[-3.0], [0.0], [9.0]])
    assert same_outputs(ranker, scores, scores + 0.03)
    assert not same_outputs(ranker, scores, scores + 0.05)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Scripted(), None),
        (Scripted(company=0.1), "change with the padding, as if it had no attention mask"),
        (Scripted(off=float("nan")), "values that are not finite"),
    ],
)
def test_model_with_implausible_outputs_is_rejected(
    spec: ModelSpec, model: Scripted, reason: str | None
) -> None:
    found = find_fault(model, spec, KNOWN)
    assert (found is None) if reason is None else (found is not None and reason in found.message)


def test_sample_texts_are_encoded_to_different_lengths() -> None:
    ranker = read_model_spec(RANKER)
    rows = encode_samples(ModelTokenizer(ranker), ranker)
    assert len({len(row.ids) for row in rows}) > 2
    assert all(row.kinds for row in rows)


def test_weights_that_are_nan_are_rejected_on_load(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    weights = random_weights()
    weights["encoder.layer.0.output.LayerNorm.bias"][:] = np.nan
    write_safetensors(tmp_path / "model.safetensors", weights)
    with pytest.raises(RuntimeFailed, match="values that are not finite"):
        CompiledModel(read_model_spec(tmp_path))


def test_auto_precision_is_resolved_on_load(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 16})
    model = CompiledModel(read_model_spec(tmp_path), Precision.AUTO)
    assert model.precision in {Precision.F32, Precision.BF16}
