"""Chunks equal Elasticsearch 9.4's, cover what its chunks cover, and cost time linear in the text."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chunking_oracle import Segments, expected, utf16
from hypothesis import given, settings
from hypothesis import strategies as st

from hubgate.core.chunking import Chunk, chunk, icu_version, icu_warning, merged_slot
from hubgate.domain.chunking import DEFAULT_CHUNKING, SEPARATOR_GROUPS, parse_chunking_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "chunking" / "elasticsearch-9.4.jsonl")
    .read_text("utf-8")
    .splitlines()
]
FRAGMENTS = sorted({line[:60] for case in CASES for line in case["text"].splitlines()[:6]})
ODDITIES = [
    *(
        " ",
        "  ",
        "\t",
        "\n",
        "\n\n",
        ". ",
        "!",
        "?",
        "。",
        ")",
        "_",
        "1.5",
        "a:b",
        "me@site",
        "e\u0301",
        "ー",
    ),
    *("😀", "👩‍👩‍👧", "𝒳", "\ud83d", "\ude00", "\n# ", "\n## ", "\n---\n", "\n===\n", "\n \n--\n", "อ", "ក"),
]
TEXTS = st.lists(
    st.one_of(st.sampled_from(FRAGMENTS), st.sampled_from(ODDITIES), st.text(max_size=8)), max_size=40
).map("".join)
SIZES = st.integers(10, 30)
SEPARATORS = [
    *(list(group) for group in SEPARATOR_GROUPS.values()),
    ["\n\n", "\n", " "],
    ["[。.!?！？]"],
    ["", "x"],
    ["\n*"],
    ["(?<=[.!?]) "],
]
WORD = st.builds(
    lambda size, part: {"strategy": "word", "max_chunk_size": size, "overlap": max(1, int(size / 2 * part))},
    SIZES,
    st.floats(0, 1),
)
SENTENCE = st.builds(
    lambda size, overlap: {"strategy": "sentence", "max_chunk_size": size + 10, "sentence_overlap": overlap},
    SIZES,
    st.sampled_from([0, 1]),
)
RECURSIVE = st.builds(
    lambda size, separators: {"strategy": "recursive", "max_chunk_size": size, "separators": separators},
    SIZES,
    st.sampled_from(SEPARATORS),
)
COVERING = st.one_of(SENTENCE, RECURSIVE, st.just({"strategy": "none"}))


def chunked(text: str, given: dict[str, Any]) -> list[Chunk]:
    return chunk(text, parse_chunking_settings(given))


def in_utf16(chunks: list[Chunk]) -> list[tuple[int, int]]:
    return [(piece.start_utf16, piece.end_utf16) for piece in chunks]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_offsets_equal_those_of_elasticsearch(case: dict[str, Any]) -> None:
    chunks = chunked(case["text"], case["settings"])
    assert [list(span) for span in in_utf16(chunks)] == case["utf16"]
    assert [[piece.start, piece.end] for piece in chunks] == case["codepoints"]


@given(TEXTS, st.one_of(WORD, SENTENCE, RECURSIVE))
@settings(max_examples=200)
def test_chunks_equal_those_of_the_reference_implementation(text: str, asked: dict[str, Any]) -> None:
    # Python's `re`, which the oracle searches with, knows only one line end.
    text = text.translate(dict.fromkeys(map(ord, "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), " "))
    assert in_utf16(chunked(text, asked)) == expected(text, asked)


@given(TEXTS, st.one_of(WORD, COVERING))
def test_code_point_and_utf16_offsets_select_the_same_text(text: str, asked: dict[str, Any]) -> None:
    whole = utf16(text)
    for piece in chunked(text, asked):
        assert utf16(text[piece.start : piece.end]) == whole[2 * piece.start_utf16 : 2 * piece.end_utf16]


@given(TEXTS, COVERING)
def test_sentence_recursive_and_none_chunks_cover_the_whole_text(text: str, asked: dict[str, Any]) -> None:
    chunks = chunked(text, asked)
    assert chunks[0].start == 0
    assert chunks[-1].end == len(text)
    assert all(later.start <= earlier.end for earlier, later in pairwise(chunks))


@given(TEXTS, WORD)
def test_word_chunks_cover_the_text_up_to_the_last_word(text: str, asked: dict[str, Any]) -> None:
    chunks = chunked(text, asked)
    segments = Segments(text)
    last = max((bound for bound, word in zip(segments.bounds, segments.word, strict=True) if word), default=0)
    assert chunks[0].start == 0
    assert chunks[-1].end_utf16 >= last
    assert all(later.start <= earlier.end for earlier, later in pairwise(chunks))


@given(TEXTS, st.one_of(WORD, COVERING))
def test_returns_at_least_one_chunk_and_starts_in_order(text: str, asked: dict[str, Any]) -> None:
    chunks = chunked(text, asked)
    starts = [piece.start for piece in chunks]
    assert chunks
    assert starts == sorted(starts)


@given(TEXTS, WORD)
def test_word_chunk_never_exceeds_its_size(text: str, asked: dict[str, Any]) -> None:
    segments = Segments(text)
    ends = [bound for bound, word in zip(segments.bounds, segments.word, strict=True) if word]
    for piece in chunked(text, asked):
        assert sum(piece.start_utf16 < end <= piece.end_utf16 for end in ends) <= asked["max_chunk_size"]


LATIN = "The gateway keeps tokens sealed. Did you try it? No! "
SCRIPTS = {
    "latin": LATIN,
    "persian": "دروازه توکن‌ها را رمزگذاری می‌کند. امروز امتحان کردید؟ ",
    "chinese": "长文本按照句子切分。你今天试过了吗？没有！",
    "one sentence": "word after word ",
    "astral": "😀 𝒳 moved on. ",
    "no words": "… — ",
    "lines": "line\nline\n\n",
    "empty lines": "\n",
}
STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "word", "max_chunk_size": 50, "overlap": 25},
    {"strategy": "sentence", "max_chunk_size": 20, "sentence_overlap": 1},
    {"strategy": "recursive", "max_chunk_size": 20, "separator_group": "markdown"},
    {"strategy": "recursive", "max_chunk_size": 10, "separators": ["\n\n", "\n", " "]},
]


def calls_of(text: str, asked: dict[str, Any]) -> int:
    """Number of function calls that chunking a text takes."""
    counted: Counter[str] = Counter()
    before = sys.getprofile()
    sys.setprofile(lambda _frame, event, _argument: counted.update([event]))
    try:
        chunked(text, asked)
    finally:
        sys.setprofile(before)
    return counted["call"] + counted["c_call"]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "asked", STRATEGIES, ids=lambda asked: f"{asked['strategy']}-{asked['max_chunk_size']}"
)
def test_work_is_linear_in_text_length(script: str, asked: dict[str, Any]) -> None:
    unit = SCRIPTS[script]
    short = unit * (6_000 // len(unit))
    calls_of(short, asked)
    # Four times the text would be 16 times the work, were it quadratic; a slow search for separators may be done twice.
    assert calls_of(short * 4, asked) <= 9 * calls_of(short, asked)


def test_chunks_a_text_of_five_megabytes() -> None:
    unit = LATIN * 9 + SCRIPTS["astral"]
    text = unit * (5_000_000 // len(unit.encode()))
    chunks = chunk(text, DEFAULT_CHUNKING)
    assert len(chunks) > 3000
    assert chunks[-1].end == len(text)
    assert chunks[-1].end_utf16 == len(utf16(text)) // 2


@pytest.mark.parametrize(
    "text", ["\ud83d", "a\ude00b", "\ude00\ud83d 😀", "\ud83d\ude00", "word \ud800. Next"]
)
@pytest.mark.parametrize("asked", STRATEGIES[:3], ids=lambda asked: asked["strategy"])
def test_lone_surrogate_counts_as_one_unit(text: str, asked: dict[str, Any]) -> None:
    assert in_utf16(chunked(text, asked)) == expected(text, parse_chunking_settings(asked).as_dict())


@pytest.mark.parametrize("asked", [*STRATEGIES, {"strategy": "none"}])
def test_empty_text_is_one_empty_chunk(asked: dict[str, Any]) -> None:
    assert chunked("", asked) == [Chunk(0, 0, 0, 0)]


def test_chunking_is_thread_safe() -> None:
    texts = [unit * 400 for unit in SCRIPTS.values()]
    alone = [chunk(text, DEFAULT_CHUNKING) for text in texts]
    together: dict[int, list[Chunk]] = {}
    start = threading.Barrier(len(texts))

    def work(index: int) -> None:
        start.wait()
        together[index] = chunk(texts[index], DEFAULT_CHUNKING)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[index] for index in range(len(texts))] == alone


def test_warns_only_of_an_icu_version_other_than_elasticsearchs() -> None:
    assert icu_version() == "77.1"
    assert icu_warning() is None
    warning = icu_warning("72.1") or ""
    assert "may differ from Elasticsearch 9.4" in warning
    assert "72.1" in warning


def test_merges_more_than_512_chunks_into_512_slots_in_order() -> None:
    def slots(total: int) -> Iterator[int]:
        return (merged_slot(number, total) for number in range(total))

    assert list(slots(512)) == list(range(512))
    merged = list(slots(1300))
    assert merged == sorted(merged)
    assert set(merged) == set(range(512))
