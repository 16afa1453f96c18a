"""Reading the folder of a model that generates text, and its chat template."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tiny_writer import change, unpack

from hubgate.domain.errors import Cause, InvalidRequest, RuntimeFailed
from hubgate.runtime.generation.prompts import PromptEncoder, check_template
from hubgate.runtime.generation.sampling import make_plan
from hubgate.runtime.generation.spec import read_generation_spec
from hubgate.runtime.protocol import GenerateText, SamplingOptions

if TYPE_CHECKING:
    from pathlib import Path

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return unpack("qwen2", tmp_path / "qwen2")


def prompt_of(folder: Path, messages: list[dict[str, Any]] = HELLO, **options: Any) -> str:
    """The rendered prompt of a chat."""
    encoder = PromptEncoder(read_generation_spec(folder))
    ids = encoder.encode(GenerateText(0, "", messages, options))
    return encoder.tokenizer.decode(ids, skip_special_tokens=False)


def test_sizes_ends_and_defaults_are_read_from_the_files(folder: Path) -> None:
    change(
        folder,
        "generation_config.json",
        eos_token_id=[2, 0],
        do_sample=True,
        temperature=0.6,
        top_k=20,
        top_p=0.95,
        repetition_penalty=1.1,
    )
    spec = read_generation_spec(folder)
    assert (spec.max_tokens, spec.vocabulary, spec.ends) == (256, 384, frozenset({0, 2}))
    assert spec.token_bytes == 2 * 2 * 2 * 8 * 4  # keys and values, layers, key heads, size, f32
    default = spec.defaults
    assert (default.sample, default.temperature, default.top_k, default.top_p) == (True, 0.6, 20, 0.95)
    assert (default.repetition_penalty, default.max_new_tokens) == (1.1, 1024)


@pytest.mark.parametrize(
    "name", ["openvino_model.xml", "openvino_model.bin", "tokenizer.json", "config.json"]
)
def test_missing_file_is_named_with_the_command_that_writes_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(RuntimeFailed, match=f"{name} is missing") as failed:
        read_generation_spec(folder)
    assert "optimum-cli export openvino --model NAME FOLDER" in failed.value.remedy
    assert "https://huggingface.co/OpenVINO" in failed.value.remedy


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("config.json", {"max_position_embeddings": None}, "does not give the sizes"),
        ("config.json", {"vocab_size": "many"}, "does not give vocab_size"),
        ("generation_config.json", {"eos_token_id": "end"}, "does not give eos_token_id"),
        ("generation_config.json", {"temperature": "hot"}, "does not give temperature"),
        ("generation_config.json", {"top_p": 3}, "does not give top_p"),
    ],
)
def test_unusable_setting_is_named(folder: Path, name: str, values: dict[str, Any], reason: str) -> None:
    change(folder, name, **values)
    with pytest.raises(RuntimeFailed, match=reason):
        read_generation_spec(folder)


def test_tokenizer_with_more_tokens_than_the_weights_is_refused(folder: Path) -> None:
    change(folder, "config.json", vocab_size=300)
    with pytest.raises(RuntimeFailed, match=r"more tokens \(384\) than its weights \(300\)") as failed:
        PromptEncoder(read_generation_spec(folder))
    assert "export the model again with its own tokenizer" in failed.value.remedy


WITHOUT_EFFECT = {
    "_from_model_config": True,
    "assistant_confidence_threshold": 0.4,
    "bos_token_id": 1,
    "cache_implementation": "hybrid",
    "diversity_penalty": 0.0,
    "encoder_no_repeat_ngram_size": 0,
    "guidance_scale": None,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "output_scores": False,
    "pad_token_id": [0],
    "token_healing": False,
    "transformers_version": "4.57.0",
    "typical_p": 1.0,
    "use_cache": True,
    "written_by_a_later_version": None,
}
WITH_ENCODER = {
    "bad_words_ids": [[7]],
    "begin_suppress_tokens": [7],
    "encoder_no_repeat_ngram_size": 3,
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 1,
    "no_repeat_ngram_size": 3,
    "num_beams": 4,
    "suppress_tokens": [7],
}
"""Rules that are applied to an encoder-decoder model."""


@pytest.mark.parametrize("name", ["qwen2", "t5"])
def test_settings_that_do_not_change_texts_are_accepted(name: str, tmp_path: Path) -> None:
    folder = unpack(name, tmp_path / name)
    change(folder, "generation_config.json", **WITHOUT_EFFECT)
    assert read_generation_spec(folder).defaults.max_new_tokens == 1024


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encoder_repetition_penalty", 1.2),
        ("epsilon_cutoff", 3e-4),
        ("exponential_decay_length_penalty", [15, 1.6]),
        ("force_words_ids", [[7]]),
        ("guidance_scale", 1.5),
        ("num_beam_groups", 2),
        ("penalty_alpha", 0.6),
        ("sequence_bias", [[[7], -5.0]]),
        ("typical_p", 0.9),
        ("watermarking_config", {"bias": 2.5}),
        ("written_by_a_later_version", 1),
    ],
)
def test_rule_that_is_not_applied_is_refused_by_name(name: str, value: object, tmp_path: Path) -> None:
    for model in ("qwen2", "t5"):
        folder = unpack(model, tmp_path / model)
        change(folder, "generation_config.json", **{name: value})
        with pytest.raises(RuntimeFailed, match=f"generation_config.json sets {name}, ") as failed:
            read_generation_spec(folder)
        assert "delete the setting from its generation_config.json" in failed.value.remedy


@pytest.mark.parametrize("name", WITH_ENCODER)
def test_rule_of_encoder_decoder_models_is_refused_for_others(name: str, tmp_path: Path) -> None:
    t5, qwen2 = (unpack(model, tmp_path / model) for model in ("t5", "qwen2"))
    for folder in (t5, qwen2):
        change(folder, "generation_config.json", **{name: WITH_ENCODER[name]})
    assert read_generation_spec(t5).text2text is not None
    with pytest.raises(RuntimeFailed, match=f"sets {name}, which is not supported for a decoder-only model"):
        read_generation_spec(qwen2)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"bad_words_ids": [[81]]}, "bad_words_ids as tokens of the vocabulary"),
        ({"bad_words_ids": [7]}, "bad_words_ids as tokens"),
        ({"bad_words_ids": [[]]}, "bad_words_ids as tokens"),
        ({"suppress_tokens": [True]}, "suppress_tokens as tokens"),
        ({"begin_suppress_tokens": [-1]}, "begin_suppress_tokens as tokens"),
        ({"early_stopping": "soon"}, "early_stopping as true, false or never"),
        ({"stop_strings": [7]}, "stop_strings as a list of texts"),
        ({"min_p": 2}, "min_p as a number"),
        ({"min_new_tokens": "few"}, "min_new_tokens as a whole number"),
        ({"do_sample": True, "num_beams": 4}, "beam search that samples is not supported"),
    ],
)
def test_rule_without_a_valid_value_is_refused(values: dict[str, Any], reason: str, tmp_path: Path) -> None:
    folder = unpack("t5", tmp_path / "t5")
    change(folder, "generation_config.json", **values)
    with pytest.raises(RuntimeFailed, match=reason):
        read_generation_spec(folder)


@pytest.mark.parametrize(
    ("rules", "prompt", "options", "expected"),
    [
        ({}, 10, {}, (0, 246)),
        ({"max_new_tokens": 30, "max_length": 40}, 20, {}, (0, 30)),
        ({"max_length": 40}, 10, {}, (0, 30)),
        ({"max_length": 40}, 60, {"max_tokens": 5}, (0, 5)),
        ({"min_length": 15}, 10, {}, (5, 246)),
        ({"min_length": 15}, 20, {}, (0, 236)),
        ({"min_length": 15, "min_new_tokens": 8}, 20, {}, (8, 236)),
        ({"min_new_tokens": 8}, 20, {"max_tokens": 3}, (3, 3)),
    ],
)
def test_length_is_limited_by_the_file_as_in_transformers(
    folder: Path, rules: dict[str, int], prompt: int, options: dict[str, Any], expected: tuple[int, int]
) -> None:
    change(folder, "generation_config.json", **rules)
    request = GenerateText(1, "", options=SamplingOptions(**options))
    plan = make_plan(request, read_generation_spec(folder), prompt)
    assert (plan.min_new_tokens, plan.max_new_tokens) == expected


def test_prompt_that_fills_the_length_in_the_file_is_refused(folder: Path) -> None:
    change(folder, "generation_config.json", max_length=40)
    with pytest.raises(InvalidRequest, match="at most 40 together") as failed:
        make_plan(GenerateText(1, ""), read_generation_spec(folder), 40)
    assert failed.value.cause is Cause.INPUT_TOO_LONG


def test_min_p_of_the_file_applies_unless_the_call_sets_it(folder: Path) -> None:
    change(folder, "generation_config.json", min_p=0.1)
    spec = read_generation_spec(folder)
    found = [
        make_plan(GenerateText(1, "", options=SamplingOptions(min_p=value)), spec, 5).min_p
        for value in (None, 0.0, 0.3)
    ]
    assert found == [0.1, 0.0, 0.3]


def test_template_is_read_from_each_place_where_transformers_wrote_it(folder: Path) -> None:
    expected = prompt_of(folder)
    assert expected == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    template = (folder / "chat_template.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}), "utf-8")
    assert prompt_of(folder) == expected
    (folder / "chat_template.json").unlink()
    change(folder, "tokenizer_config.json", chat_template=template)
    assert prompt_of(folder) == expected
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": template}]
    change(folder, "tokenizer_config.json", chat_template=several)
    assert prompt_of(folder) == expected
    change(folder, "tokenizer_config.json", chat_template=None)
    with pytest.raises(InvalidRequest, match="has no chat template") as failed:
        prompt_of(folder)
    assert failed.value.cause is Cause.WRONG_TASK


def test_template_has_the_functions_of_transformers(folder: Path) -> None:
    """By transformers' documentation of chat templates."""
    (folder / "chat_template.jinja").write_text(
        "{{ eos_token }}{% for message in messages %}\n"
        "    {% if message.role == 'tool' %}{% continue %}{% endif %}\n"
        "{% generation %}{{ message | tojson }}{% endgeneration %}{% endfor %}\n"
        "{% if tools is not none or not tools is defined %}tools{% endif %}"
        "{% if not thinking %}{{ strftime_now('%Y') | length }}{% endif %}",
        "utf-8",
    )
    messages = [{"role": "user", "content": "é<"}, {"role": "tool", "content": "1"}]
    shown = '<|im_end|>{"role": "user", "content": "é<"}'
    assert prompt_of(folder, messages) == f"{shown}4"
    assert prompt_of(folder, messages, thinking=True) == shown


def test_conversation_that_the_template_refuses_is_refused_with_its_words(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}hi",
        "utf-8",
    )
    assert prompt_of(folder) == "hi"
    with pytest.raises(InvalidRequest, match="refuses these messages: System role not supported"):
        prompt_of(folder, [{"role": "system", "content": "Be brief."}])


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% if %}", "not valid Jinja"),
        ("{{ messages[9].content.upper() }}", "cannot render"),
        ("{{ messages.__class__.__mro__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}", "cannot render"),
        ("{{ messages.append(1) }}", "cannot render"),
    ],
)
def test_template_that_fails_or_leaves_its_sandbox_is_found_at_load(
    folder: Path, template: str, reason: str
) -> None:
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    with pytest.raises(RuntimeFailed, match=reason):
        check_template(PromptEncoder(read_generation_spec(folder)))
