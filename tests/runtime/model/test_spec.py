from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tiny_model import HIDDEN, MAX_TOKENS, POSITIONS, write_json, write_tiny_model

from hubgate.domain.errors import Cause, RuntimeFailed
from hubgate.runtime.model.heads import EmbeddingHead, Pooling
from hubgate.runtime.model.spec import read_model_spec

if TYPE_CHECKING:
    from pathlib import Path

POOLING, OWN, TOKENIZER = "1_Pooling/config.json", "sentence_bert_config.json", "tokenizer_config.json"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder of a tiny model, to be tampered with."""
    write_tiny_model(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_spec_reads_pooling_normalization_length_and_prompts(tiny: Path) -> None:
    spec = read_model_spec(tiny)
    assert (spec.head, spec.max_tokens) == (EmbeddingHead(Pooling.MEAN, normalize=True), MAX_TOKENS)
    assert (spec.hidden, spec.width) == (HIDDEN, HIDDEN)
    assert spec.prompts["query"] == "w1 w2 "


def test_folder_without_normalize_module_is_not_normalized(tiny: Path) -> None:
    modules = json.loads((tiny / "modules.json").read_bytes())
    write_json(tiny / "modules.json", modules[:2])
    assert read_model_spec(tiny).head == EmbeddingHead(Pooling.MEAN, normalize=False)


def test_reads_files_of_newer_sentence_transformers(tiny: Path) -> None:
    kinds = (
        "base.modules.transformer.Transformer",
        "sentence_transformer.modules.pooling.Pooling",
        "base.modules.normalize.Normalize",
    )
    paths = ("", "1_Pooling", "2_Normalize")
    write_json(
        tiny / "modules.json",
        [{"path": p, "type": f"sentence_transformers.{k}"} for p, k in zip(paths, kinds, strict=True)],
    )
    write_json(tiny / POOLING, {"embedding_dimension": HIDDEN, "pooling_mode": "cls", "include_prompt": True})
    write_json(tiny / OWN, {"transformer_task": "feature-extraction"})
    write_json(tiny / TOKENIZER, {"model_max_length": 20})
    (tiny / "config_sentence_transformers.json").unlink()
    spec = read_model_spec(tiny)
    assert (spec.head, spec.max_tokens) == (EmbeddingHead(Pooling.CLS, normalize=True), 20)
    assert spec.prompts == {}


@pytest.mark.parametrize(
    ("own", "limit"), [(None, 20), ({"max_seq_length": None}, 20), ({"max_seq_length": 9}, 9)]
)
def test_tokenizer_has_the_limit_if_no_other_file_has(tiny: Path, own: object, limit: int) -> None:
    write_json(tiny / TOKENIZER, {"model_max_length": 20})
    (tiny / OWN).unlink()
    if own is not None:
        write_json(tiny / OWN, own)
    assert read_model_spec(tiny).max_tokens == limit


def test_model_without_any_limit_reads_as_many_tokens_as_it_has_positions(tiny: Path) -> None:
    (tiny / OWN).unlink()
    assert read_model_spec(tiny).max_tokens == POSITIONS


def test_prompt_that_is_null_is_empty(tiny: Path) -> None:
    """As in sentence-transformers, which always has prompts for queries and documents."""
    content = {"prompts": {"query": None, "clustering": "w3 "}, "default_prompt_name": "document"}
    write_json(tiny / "config_sentence_transformers.json", content)
    spec = read_model_spec(tiny)
    assert (spec.prompts, spec.default_prompt) == ({"query": "", "clustering": "w3 "}, "document")


def test_default_prompt_must_be_among_the_prompts(tiny: Path) -> None:
    content = {"prompts": {"query": "w1 "}, "default_prompt_name": "clustering"}
    write_json(tiny / "config_sentence_transformers.json", content)
    assert "names a default prompt that is not among its prompts" in _refusal(tiny)


def test_settings_that_config_leaves_out_are_those_of_transformers(tiny: Path) -> None:
    config = json.loads((tiny / "config.json").read_bytes())
    write_json(tiny / "config.json", {**config, "hidden_act": "gelu_python"})
    expected = read_model_spec(tiny)
    assert expected.shape is not None
    del config["hidden_act"], config["layer_norm_eps"]
    write_json(tiny / "config.json", config)
    assert read_model_spec(tiny) == expected


def test_files_are_checked_before_the_weights_are_there(tiny: Path) -> None:
    (tiny / "model.safetensors").unlink()
    assert read_model_spec(tiny, downloaded=False).max_tokens == MAX_TOKENS
    (tiny / "modules.json").unlink()
    with pytest.raises(RuntimeFailed, match=r"modules\.json is missing"):
        read_model_spec(tiny, downloaded=False)


def test_side_of_truncation_is_read_from_the_tokenizer(tiny: Path) -> None:
    assert not read_model_spec(tiny).truncate_left
    write_json(tiny / TOKENIZER, {"truncation_side": "left"})
    assert read_model_spec(tiny).truncate_left
    config = json.loads((tiny / "config.json").read_bytes())
    write_json(tiny / "config.json", config | {"architectures": ["BertForSequenceClassification"]})
    assert "truncation_side, which is not supported for pairs" in _refusal(tiny)


def test_max_tokens_never_exceeds_model_positions(tiny: Path) -> None:
    write_json(tiny / OWN, {})
    write_json(tiny / TOKENIZER, {"model_max_length": 1e30})
    assert read_model_spec(tiny).max_tokens == POSITIONS


@pytest.mark.parametrize(
    "name", ["modules.json", "config.json", POOLING, "tokenizer.json", "model.safetensors"]
)
def test_missing_file_is_rejected_by_name(tiny: Path, name: str) -> None:
    (tiny / name).unlink()
    assert f"{name} is missing" in _refusal(tiny)


@pytest.mark.parametrize("name", ["modules.json", "config.json", POOLING, OWN])
def test_file_that_is_not_json_is_rejected_by_name(tiny: Path, name: str) -> None:
    (tiny / name).write_text("{")
    assert f"{name} cannot be read" in _refusal(tiny)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("config.json", {"model_type": "mpnet"}, "config.json has another model_type than 'bert'"),
        ("config.json", {"hidden_act": "relu"}, "another hidden_act than 'gelu'"),
        ("config.json", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("config.json", {"num_hidden_layers": None}, "does not give the sizes"),
        ("config.json", {"num_attention_heads": 5}, "over 5 heads"),
        ("config.json", {"hidden_size": 64}, "do not give the same number of dimensions"),
        ("config.json", {"max_position_embeddings": None}, "no file says how many tokens"),
        (POOLING, {"pooling_mode": "lasttoken"}, "a pooling that is not supported"),
        (POOLING, {"pooling_mode": ["mean", "cls"]}, "a pooling that is not supported"),
        (POOLING, {"pooling_mode_mean_tokens": False}, "supported: mean, cls"),
        (POOLING, {"pooling_mode_max_tokens": True}, "a pooling that is not supported"),
        (POOLING, {"include_prompt": False}, "excludes prompts"),
    ],
)
def test_unsupported_model_is_rejected_with_reason(
    tiny: Path, name: str, change: dict[str, Any], reason: str
) -> None:
    write_json(tiny / name, json.loads((tiny / name).read_bytes()) | change)
    assert reason in _refusal(tiny)


@pytest.mark.parametrize("content", [[], {}, [{"path": ""}], [{"type": "x.Transformer", "path": ""}], ["a"]])
def test_unsupported_modules_are_rejected(tiny: Path, content: object) -> None:
    write_json(tiny / "modules.json", content)
    assert "modules.json" in _refusal(tiny)


@pytest.mark.parametrize("path", ["../../secrets", "/etc"])
def test_modules_outside_the_folder_are_rejected(tiny: Path, path: str) -> None:
    modules = json.loads((tiny / "modules.json").read_bytes())
    modules[1]["path"] = path
    write_json(tiny / "modules.json", modules)
    assert "leads out of its folder" in _refusal(tiny)


@pytest.mark.parametrize("name", ["config.json", "modules.json"])
def test_deeply_nested_json_is_rejected(tiny: Path, name: str) -> None:
    (tiny / name).write_text("[" * 200_000)
    assert f"{name} cannot be read" in _refusal(tiny)


def test_dense_layer_is_rejected_rather_than_ignored(tiny: Path) -> None:
    modules = json.loads((tiny / "modules.json").read_bytes())
    modules.insert(2, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    write_json(tiny / "modules.json", modules)
    assert "other modules than Transformer, Pooling and perhaps Normalize" in _refusal(tiny)


def test_file_without_json_object_is_rejected(tiny: Path) -> None:
    write_json(tiny / "config.json", [])
    assert "config.json is not a JSON object" in _refusal(tiny)


def _refusal(folder: Path) -> str:
    with pytest.raises(RuntimeFailed) as failed:
        read_model_spec(folder)
    assert failed.value.cause is Cause.MODEL_UNUSABLE
    assert "sentence-transformers model" in failed.value.remedy
    return failed.value.message


SECRET = "S3CRET-VALUE"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(
            ("config.json", {key: SECRET})
            for key in ("hidden_size", "model_type", "hidden_act", "layer_norm_eps")
        ),
        ("config.json", {"hidden_size": [SECRET]}),
        ("config.json", {"max_position_embeddings": {SECRET: 1}}),
        (
            "config.json",
            {"architectures": ["XForSequenceClassification"], "sbert_ce_default_activation_function": SECRET},
        ),
        (POOLING, {"pooling_mode": SECRET}),
        (POOLING, {"word_embedding_dimension": SECRET}),
    ],
)
def test_errors_never_quote_file_contents(tiny: Path, name: str, change: dict[str, Any]) -> None:
    write_json(tiny / name, json.loads((tiny / name).read_bytes()) | change)
    assert SECRET not in _refusal(tiny)
    write_json(tiny / "modules.json", [{"type": SECRET, "path": ""}])
    assert SECRET not in _refusal(tiny)
