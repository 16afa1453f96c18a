"""Counting tokens, and reading token limits from a model's files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tokenizers import Tokenizer

from hubgate.runtime.model.files import TOKENIZER, TokenizerBroken
from hubgate.runtime.model.spec import read_max_tokens
from hubgate.runtime.model.tokenizer import count_tokens, open_tokenizer
from hubgate.upstreams.local.files import packaged

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def minilm() -> Path:
    folder = packaged("sentence-transformers/all-MiniLM-L6-v2")
    assert folder is not None
    return folder


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 2), ("hello world", 4), ("word " * 300, 302), ("深い学習 → تهران", None)]
)
@pytest.mark.parametrize("limit", [None, 256])
def test_token_count_includes_special_tokens(
    minilm: Path, text: str, tokens: int | None, limit: int | None
) -> None:
    plain = Tokenizer.from_file(str(minilm / TOKENIZER))
    plain.no_truncation()
    plain.no_padding()
    counted = count_tokens(open_tokenizer(minilm), text, limit)
    assert counted == len(plain.encode(text).ids)
    assert tokens in (None, counted)


def test_token_count_reads_only_the_beginning_of_huge_texts(minilm: Path) -> None:
    tokenizer = open_tokenizer(minilm)
    assert 256 < count_tokens(tokenizer, "word " * 100_000, 256) < 3000
    assert count_tokens(tokenizer, "word " * 4000, None) == 4002


def test_long_text_of_few_tokens_is_counted_completely(minilm: Path) -> None:
    assert count_tokens(open_tokenizer(minilm), "a" + " " * 20_000 + "b", 16) == 4


def test_broken_tokenizer_raises_when_opened_or_used(tmp_path: Path, minilm: Path) -> None:
    with pytest.raises(TokenizerBroken, match="cannot be read"):
        open_tokenizer(tmp_path)
    content = json.loads((minilm / TOKENIZER).read_bytes())
    content["model"]["unk_token"] = "[NOT THERE]"
    (tmp_path / TOKENIZER).write_text(json.dumps(content))
    tokenizer = open_tokenizer(tmp_path)
    assert count_tokens(tokenizer, "hello", None) == 3
    with pytest.raises(TokenizerBroken, match="cannot cut every text"):
        count_tokens(tokenizer, "\N{SNOWMAN}", None)


@pytest.mark.parametrize(
    ("own", "tokenizer", "config", "limit"),
    [
        ({"max_seq_length": 256}, {"model_max_length": 512}, {"max_position_embeddings": 512}, 256),
        ({"max_seq_length": 8192}, {}, {"max_position_embeddings": 514}, 514),
        ({}, {"model_max_length": 128}, {}, 128),
        (None, {"model_max_length": 128}, None, 128),
        (None, {"model_max_length": 1e30}, None, None),
        (None, {"model_max_length": 1e30}, {"max_position_embeddings": 512}, 512),
        (None, {"model_max_length": "long"}, {}, None),
        ({"max_seq_length": None}, None, {"max_position_embeddings": 512}, None),
        (None, None, None, None),
    ],
)
def test_token_limit_is_smallest_in_model_files(
    tmp_path: Path,
    own: dict[str, object] | None,
    tokenizer: dict[str, object] | None,
    config: dict[str, object] | None,
    limit: int | None,
) -> None:
    names = ("sentence_bert_config.json", "tokenizer_config.json", "config.json")
    for name, content in zip(names, (own, tokenizer, config), strict=True):
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
    assert read_max_tokens(tmp_path) == limit


@pytest.mark.parametrize("name", ["sentence_bert_config.json", "tokenizer_config.json", "config.json"])
def test_file_that_a_model_could_not_be_run_with_only_loses_its_own_limit(tmp_path: Path, name: str) -> None:
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 512}')
    (tmp_path / name).write_text("{")
    assert read_max_tokens(tmp_path) == (None if name == "sentence_bert_config.json" else 256)
    (tmp_path / "config.json").write_text('{"max_position_embeddings": "many", "pad_token_id": -1}')
    assert read_max_tokens(tmp_path) == (None if name == "sentence_bert_config.json" else 256)


def test_model_with_do_lower_case_is_counted_in_lower_case(tmp_path: Path, minilm: Path) -> None:
    content = json.loads((minilm / TOKENIZER).read_bytes())
    content["normalizer"]["lowercase"] = False
    (tmp_path / TOKENIZER).write_text(json.dumps(content))
    cased = count_tokens(open_tokenizer(tmp_path), "TOKENIZERS", None)
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256, "do_lower_case": true}')
    assert count_tokens(open_tokenizer(tmp_path), "TOKENIZERS", None) == 5 != cased
    assert read_max_tokens(tmp_path) == 256
    (tmp_path / "sentence_bert_config.json").write_text("{")
    assert count_tokens(open_tokenizer(tmp_path), "TOKENIZERS", None) == cased
