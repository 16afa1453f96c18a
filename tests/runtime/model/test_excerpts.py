"""Only a part of a long text is tokenized; the model must get the same tokens as from the whole text."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from laws import examples
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from hubgate.runtime.model.excerpt import ExcerptUndecided, excerpt
from hubgate.runtime.model.spec import read_model_spec
from hubgate.runtime.model.tokenizer import ModelTokenizer, open_tokenizer
from hubgate.upstreams.local.files import packaged

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parents[2] / "data"
MOST = 1 << 18
PIECES = [
    "the harbour opens ",
    "unbelievable",
    "a",
    "ab",
    "aab",
    " ",
    "\n\n",
    "\t \u3000",
    "词",
    "渔民在码头上",
    "。",
    "e\u0301",
    "\u0316\u0301",
    "ﷺ",
    "کشتی‌ها با ",
    "हिन्दी भाषा ",
    "7",
    "123456",
    "!?",
    "🇫🇷👩‍👩‍👧",
    "[MASK]",
    "[SE",
    "P] ",
    "<s>",
    "=" * 40,
    "\u00ad\u200b",
]


def texts_of(max_runs: int) -> st.SearchStrategy[str]:
    runs = st.lists(
        st.tuples(st.sampled_from(PIECES) | st.text(max_size=5), st.integers(1, 200)), max_size=max_runs
    )
    return runs.map(lambda runs: "".join(piece * times for piece, times in runs))


TEXTS = texts_of(8)
# The tokenizer's own truncation keeps every pair of a part of the query with a part of the text: quadratic in the length.
TEXTS_OF_PAIRS = texts_of(3)


def word_piece() -> Tokenizer:
    folder = packaged("sentence-transformers/all-MiniLM-L6-v2")
    assert folder is not None
    return open_tokenizer(folder)


def unigram_of_xlm_roberta() -> Tokenizer:
    return open_tokenizer(DATA / "tiny_models" / "xlm-roberta")


def corpus() -> list[str]:
    """Texts with runs, so that tokens of many letters and many ways to cut them are learned."""
    return [piece * times for piece in PIECES for times in (1, 2, 3, 5, 8)] * 3


def unigram_without_words() -> Tokenizer:
    """The hardest kind: the whole text is one word, and any token may depend on all that follows."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" ", "▁")])
    trainer = trainers.UnigramTrainer(vocab_size=400, unk_token="<unk>", special_tokens=["<unk>", "<s>"])
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def bpe_of_bytes() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<s>", "[MASK]"])
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def bpe_without_words() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>"])
    )
    return tokenizer


KINDS = [word_piece, unigram_of_xlm_roberta, unigram_without_words, bpe_of_bytes, bpe_without_words]
opened = cache(lambda kind: kind())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [False, True])
@settings(max_examples=examples(15))
@given(text=TEXTS, need=st.integers(1, 12))
@example(text="ab" * 2001, need=5)
@example(text="a" * 4003, need=9)
@example(text="1" * 4001, need=7)
@example(text=" " * 4000 + "x", need=3)
@example(text="a\u0301" + "\u0301" * 4000 + "\u0316 b", need=3)
def test_excerpt_yields_same_tokens_as_whole_text(
    kind: Callable[[], Tokenizer], text: str, need: int, left: bool
) -> None:
    tokenizer = opened(kind)
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    part = tokenizer.encode(excerpt(tokenizer, text, need, MOST, left=left), add_special_tokens=False).ids
    if left:
        assert part[-need:] == whole[-need:]
    else:
        assert part[:need] == whole[:need]
    assert min(len(part), need) == min(len(whole), need)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", ["the harbour opens ", "词", "a-b-c-d-"])
def test_only_a_small_part_of_a_long_text_is_tokenized(kind: Callable[[], Tokenizer], piece: str) -> None:
    assert len(excerpt(opened(kind), piece * 50_000, 100, MOST)) < 60_000


def test_undecided_excerpt_is_tokenized_whole_or_rejected() -> None:
    tokenizer = word_piece()
    assert excerpt(tokenizer, "a" * 5000, 10, 5000) == "a" * 5000
    with pytest.raises(ExcerptUndecided):
        excerpt(tokenizer, "a" * 5001, 10, 5000)
    with pytest.raises(ExcerptUndecided):
        excerpt(unigram_without_words(), " " * 5001, 10, 5000, left=True)


@pytest.mark.parametrize("name", ["ranker-bert", "ranker-xlm-roberta"])
@given(query=TEXTS_OF_PAIRS, texts=st.lists(TEXTS_OF_PAIRS, max_size=3))
@example(query="w " * 1000, texts=["w " * 999, "w " * 1001, "w", "w " * 20])
@settings(max_examples=examples(15))
def test_pairs_match_truncation_by_tokenizer(name: str, query: str, texts: list[str]) -> None:
    folder = DATA / "tiny_models" / name
    plain = open_tokenizer(folder)
    plain.enable_truncation(48, strategy="longest_first")
    tokens = ModelTokenizer(read_model_spec(folder))
    rows, cut = tokens.pairs(tokens.query(query), texts, truncate=True)
    expected = [plain.encode(query, text) for text in texts]
    assert [row.ids for row in rows] == [each.ids for each in expected]
    assert [row.kinds for row in rows if row.kinds] == [each.type_ids for each in expected if rows[0].kinds]
    assert cut == [bool(each.overflowing) for each in expected]
