"""Tokens to text, piece by piece."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from hubgate.runtime.generation.text import TextBuilder

DATA = Path(__file__).parents[2] / "data" / "tiny_writers"
TEXTS = ["The ferry leaves at nine. ", "渔民补网，妇女卖鱼。", "🚢⚓ and é", "a  b\n\n c"]


@pytest.mark.parametrize("name", ["qwen2", "t5", "bart"])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_concatenate_to_the_decoded_text(name: str, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(DATA / name / "tokenizer.json"))
    ids = tokenizer.encode(text).ids
    builder = TextBuilder(tokenizer)
    pieces = [builder.add([token]) for token in ids]
    assert "".join(pieces) + builder.end() == tokenizer.decode(ids)


def test_incomplete_character_waits_for_its_rest() -> None:
    tokenizer = Tokenizer.from_file(str(DATA / "qwen2" / "tokenizer.json"))
    ids = tokenizer.encode("é").ids
    assert len(ids) == 2
    builder = TextBuilder(tokenizer)
    assert [builder.add([token]) for token in ids] == ["", "é"]
    cut = TextBuilder(tokenizer)
    assert (cut.add(ids[:1]), cut.end()) == ("", "\ufffd")


def test_stop_sequence_is_found_wherever_tokens_end() -> None:
    tokenizer = Tokenizer.from_file(str(DATA / "qwen2" / "tokenizer.json"))
    rng = random.Random(4)
    for _ in range(300):
        text = "".join(rng.choices("ab", k=12))
        stops = ["".join(rng.choices("ab", k=rng.randint(1, 5))) for _ in range(2)]
        builder, found = TextBuilder(tokenizer, stops), ""
        for token in tokenizer.encode(text).ids:
            found += builder.add([token])
            if builder.stop is not None:
                break
        found += builder.end()
        # The text ends at the sequence that is complete first.
        ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
        assert found == (text[: min(ends)[1]] if ends else text) or builder.stop in stops
        assert all(stop not in found for stop in stops)
