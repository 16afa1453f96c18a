"""Beam search and the other rules of encoder-decoder models, against transformers' `generate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_writer import ANSWERS, unpack

from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import RuntimeFailed
from hubgate.runtime.generation.prompts import PromptEncoder
from hubgate.runtime.generation.sampling import make_plan
from hubgate.runtime.generation.scores import choose
from hubgate.runtime.generation.spec import read_generation_spec
from hubgate.runtime.generation.text2text import Text2TextEngine
from hubgate.runtime.machine import CpuShare
from hubgate.runtime.protocol import GenerateText, SamplingOptions

if TYPE_CHECKING:
    from pathlib import Path

NEW_TOKENS = 40


class Model:
    """A model in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "generation_config.json"
        self.own = json.loads(self.file.read_bytes())
        spec = read_generation_spec(folder)
        self.encoder = PromptEncoder(spec)
        assert spec.text2text is not None
        self.engine = Text2TextEngine(spec, spec.text2text, Precision.F32, CpuShare(2, 1), [5])

    def generate(self, prompt: str, rules: dict[str, Any]) -> tuple[str, int]:
        """The text by rules of `generation_config.json`, and the number of its tokens."""
        self.file.write_text(json.dumps({**self.own, "max_new_tokens": NEW_TOKENS, **rules}), "utf-8")
        spec = read_generation_spec(self.folder)
        assert spec.text2text is not None
        request = GenerateText(1, prompt)
        ids = self.encoder.encode(request)
        engine = self.engine
        engine._rules = spec.text2text
        engine.start(1, ids, make_plan(request, spec, len(ids)))
        found: list[int] = []
        while engine.busy:
            for _, new, _ in engine.step():
                found += new
        return self.encoder.tokenizer.decode(found), len(found)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_text_by_each_rule_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    model = Model(unpack(name, tmp_path / name))
    expected = ANSWERS[name]["searches"]
    assert len({one["text"] for one in expected}) > 4
    found = [model.generate(one["prompt"], one["rules"]) for one in expected]
    assert found == [(one["text"], one["tokens"]) for one in expected]


def test_rules_are_read_from_the_files(tmp_path: Path) -> None:
    """Of BART those of a summarizer; T5's prompt is limited by its tokenizer, as it has relative positions."""
    bart, t5 = (read_generation_spec(unpack(name, tmp_path / name)) for name in ("bart", "t5"))
    rules = bart.text2text
    assert rules is not None
    assert (rules.beams, rules.length_penalty, rules.early_stopping) == (4, 2.0, True)
    assert (rules.no_repeat_ngram, rules.min_length, rules.start) == (3, 6, 2)
    assert (rules.forced_start, rules.forced_end, bart.defaults.max_new_tokens) == (0, 2, 47)
    assert (t5.max_tokens, t5.template, t5.ends) == (256, None, frozenset({1}))
    assert t5.defaults.max_new_tokens == 1024


def test_graph_that_keeps_no_state_is_refused(tmp_path: Path) -> None:
    """As exports without the past have it."""
    folder = unpack("t5", tmp_path / "t5")
    for suffix in ("xml", "bin"):
        (folder / f"openvino_encoder_model.{suffix}").rename(folder / f"openvino_decoder_model.{suffix}")
        (folder / f"openvino_encoder_model.{suffix}").write_bytes(
            (folder / f"openvino_decoder_model.{suffix}").read_bytes()
        )
    with pytest.raises(RuntimeFailed, match="takes other inputs") as failed:
        Model(folder)
    assert "optimum-cli export openvino" in failed.value.remedy


def test_draws_follow_temperature_top_k_top_p_and_min_p(tmp_path: Path) -> None:
    spec = read_generation_spec(unpack("t5", tmp_path / "t5"))
    scores = np.log(np.array([0.5, 0.3, 0.15, 0.05]))

    def drawn(**options: Any) -> list[float]:
        request = GenerateText(1, "", options=SamplingOptions(sample=True, **options))
        rng, plan = np.random.default_rng(1), make_plan(request, spec, 1)
        counts = np.bincount([choose(scores, plan, rng) for _ in range(500)], minlength=4)
        return [float(share) for share in counts / 500]

    assert drawn() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.08)
    assert drawn(top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.08)
    assert drawn(top_p=0.7) == pytest.approx([0.625, 0.375, 0, 0], abs=0.08)
    assert drawn(min_p=0.4) == pytest.approx([0.625, 0.375, 0, 0], abs=0.08)
    assert drawn(temperature=0.5)[0] == pytest.approx(0.25 / 0.365, abs=0.08)
    assert drawn(temperature=0.01) == [1, 0, 0, 0]
