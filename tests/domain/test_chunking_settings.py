"""Chunking settings are parsed, rejected and returned as in Elasticsearch 9.4."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hubgate.domain.chunking import (
    DEFAULT_CHUNKING,
    SEPARATOR_GROUPS,
    ChunkingSettings,
    InvalidChunking,
    parse_chunking_settings,
)
from hubgate.domain.errors import Cause, InvalidEndpoint

SENTENCE: dict[str, Any] = {"strategy": "sentence", "max_chunk_size": 20}
WORD: dict[str, Any] = {"strategy": "word", "max_chunk_size": 10, "overlap": 5}
RECURSIVE: dict[str, Any] = {"strategy": "recursive", "max_chunk_size": 10}


@pytest.mark.parametrize("given", [None, {}])
def test_defaults_to_sentences_of_250_words_with_overlap_of_one(given: dict[str, Any] | None) -> None:
    assert parse_chunking_settings(given) is DEFAULT_CHUNKING
    assert DEFAULT_CHUNKING.as_dict() == {
        "strategy": "sentence",
        "max_chunk_size": 250,
        "sentence_overlap": 1,
    }


@pytest.mark.parametrize(
    ("given", "returned"),
    [
        (SENTENCE, SENTENCE | {"sentence_overlap": 1}),
        (SENTENCE | {"sentence_overlap": 0}, SENTENCE | {"sentence_overlap": 0}),
        (SENTENCE | {"sentence_overlap": None}, SENTENCE | {"sentence_overlap": 1}),
        (WORD, WORD),
        ({"strategy": "none", "max_chunk_size": "not looked at"}, {"strategy": "none"}),
        (RECURSIVE | {"separators": ["\n\n", " "]}, RECURSIVE | {"separators": ["\n\n", " "]}),
        (RECURSIVE, RECURSIVE | {"separators": list(SEPARATOR_GROUPS["plaintext"])}),
        (
            RECURSIVE | {"separator_group": "MarkDown"},
            RECURSIVE | {"separators": list(SEPARATOR_GROUPS["markdown"])},
        ),
        (
            {"strategy": "Sentence", "max_chunk_size": 5000},
            SENTENCE | {"max_chunk_size": 5000, "sentence_overlap": 1},
        ),
    ],
)
def test_valid_settings_return_only_options_of_their_strategy(
    given: dict[str, Any], returned: dict[str, Any]
) -> None:
    settings = parse_chunking_settings(given)
    assert settings.as_dict() == returned
    assert parse_chunking_settings(settings.as_dict()) == settings


MISSING = "[chunking_settings] does not contain the required setting"
INVALID = "[chunking_settings] Invalid value"
TYPE = "is not of the expected type. The value"


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({"max_chunk_size": 20}, ["Can't generate Chunker without ChunkingStrategy provided"]),
        ({"strategy": "page"}, ["Invalid chunkingStrategy page"]),
        ({"strategy": 3}, ["Invalid chunkingStrategy 3"]),
        ({"strategy": "sentence"}, [f"{MISSING} [max_chunk_size]"]),
        ({"strategy": "word"}, [f"{MISSING} [max_chunk_size]", f"{MISSING} [overlap]"]),
        (
            SENTENCE | {"max_chunk_size": 19},
            [f"{INVALID} [19.0]. [max_chunk_size] must be greater than or equal to [20.0]"],
        ),
        (
            WORD | {"max_chunk_size": 5},
            [f"{INVALID} [5.0]. [max_chunk_size] must be greater than or equal to [10.0]"],
        ),
        (
            RECURSIVE | {"max_chunk_size": 9},
            [f"{INVALID} [9.0]. [max_chunk_size] must be greater than or equal to [10.0]"],
        ),
        (SENTENCE | {"max_chunk_size": 0}, [f"{INVALID} [0]. [max_chunk_size] must be a positive integer"]),
        (
            SENTENCE | {"max_chunk_size": 20.0},
            [f"field [max_chunk_size] {TYPE} [20.0] cannot be converted to a [Integer]"],
        ),
        (
            SENTENCE | {"max_chunk_size": True},
            [f"field [max_chunk_size] {TYPE} [True] cannot be converted to a [Integer]"],
        ),
        (
            SENTENCE | {"max_chunk_size": 2**31},
            [f"field [max_chunk_size] {TYPE} [2147483648] cannot be converted to a [Integer]"],
        ),
        (SENTENCE | {"sentence_overlap": 2}, ["sentence_overlap[2] must be either 0 or 1"]),
        (
            SENTENCE | {"sentence_overlap": "1"},
            [f"field [sentence_overlap] {TYPE} [1] cannot be converted to a [Integer]"],
        ),
        (WORD | {"overlap": 0}, [f"{INVALID} [0]. [overlap] must be a positive integer"]),
        (WORD | {"overlap": 6}, [f"{INVALID} [6.0]. [overlap] must be less than or equal to [5.0]"]),
        (
            WORD | {"max_chunk_size": 11, "overlap": 6},
            [f"{INVALID} [6.0]. [overlap] must be less than or equal to [5.0]"],
        ),
        (
            SENTENCE | {"overlap": 1, "colour": 2},
            ["Sentence based chunking settings can not have the following settings: [overlap, colour]"],
        ),
        (
            WORD | {"sentence_overlap": 1},
            ["Word based chunking settings can not have the following settings: [sentence_overlap]"],
        ),
        (
            RECURSIVE | {"overlap": 1},
            ["Recursive chunking settings can not have the following settings: [overlap]"],
        ),
        (
            RECURSIVE | {"separators": ["\n"], "separator_group": "plaintext"},
            ["Recursive chunking settings can not have both [separators] and [separator_group]"],
        ),
        (
            RECURSIVE | {"separator_group": "html"},
            [f"{INVALID} [html]. [separator_group] must be one of [plaintext, markdown]"],
        ),
        (
            RECURSIVE | {"separator_group": 1},
            [f"{INVALID} [1]. [separator_group] must be one of [plaintext, markdown]"],
        ),
        (
            RECURSIVE | {"separators": []},
            [f"{INVALID} empty list. [separators] must be a non-empty list"],
        ),
        (
            RECURSIVE | {"separators": "\n"},
            [f"field [separators] {TYPE} [\n] cannot be converted to a [List of String]"],
        ),
        (
            RECURSIVE | {"separators": [1]},
            [f"field [separators] {TYPE} [(1,)] cannot be converted to a [List of String]"],
        ),
        (
            RECURSIVE | {"separators": ["x"] * 51},
            [f"{INVALID} [51 separators]. [separators] must have at most [50]"],
        ),
        (
            RECURSIVE | {"separators": ["\n", "x" * 1001]},
            [f"{INVALID} [{'x' * 40}…]. A separator must be at most [1000] characters long, not [1001]"],
        ),
        (
            SENTENCE | {"max_chunk_size": 5, "sentence_overlap": 3, "separators": ["x"]},
            [
                "Sentence based chunking settings can not have the following settings: [separators]",
                f"{INVALID} [5.0]. [max_chunk_size] must be greater than or equal to [20.0]",
                "sentence_overlap[3] must be either 0 or 1",
            ],
        ),
    ],
)
def test_reports_all_problems_at_once(given: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(InvalidChunking) as caught:
        parse_chunking_settings(given)
    assert list(caught.value.problems) == problems
    assert caught.value.message == "; ".join(problems)


def test_unknown_strategy_error_lists_known_ones() -> None:
    with pytest.raises(InvalidEndpoint, match="sentence, word, recursive, none") as caught:
        parse_chunking_settings({"strategy": "x" * 10_000})
    assert caught.value.cause is Cause.INVALID_ENDPOINT
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "sentence", "max_chunk_size": 250},
        {"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1, "overlap": 1},
        {"strategy": "word", "max_chunk_size": 10, "overlap": 6},
        {"strategy": "recursive", "max_chunk_size": 10},
        {"strategy": "recursive", "max_chunk_size": 10, "separators": ["a list"]},
        {"strategy": "none", "max_chunk_size": 10},
        {"strategy": "page"},
    ],
)
def test_rejects_invalid_settings(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidChunking):
        ChunkingSettings(**options)


@pytest.mark.parametrize("given", [SENTENCE, WORD, RECURSIVE, {"strategy": "none"}])
def test_settings_survive_json_round_trip(given: dict[str, Any]) -> None:
    settings = parse_chunking_settings(given)
    stored = msgspec.json.encode(msgspec.to_builtins(settings))
    assert msgspec.convert(msgspec.json.decode(stored), ChunkingSettings) == settings
