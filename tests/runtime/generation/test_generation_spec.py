"""Reading the folder of a model that generates text, and its chat template."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tiny_writer import unpack

from hubgate.domain.errors import Cause, InvalidRequest, RuntimeFailed
from hubgate.runtime.generation.prompts import PromptEncoder, check_template
from hubgate.runtime.generation.spec import read_generation_spec
from hubgate.runtime.protocol import GenerateText

if TYPE_CHECKING:
    from pathlib import Path

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return unpack("qwen2", tmp_path / "qwen2")


def change(folder: Path, name: str, **values: Any) -> None:
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **values}), "utf-8")


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
    with pytest.raises(RuntimeFailed, match="more tokens than its weights"):
        PromptEncoder(read_generation_spec(folder))


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
