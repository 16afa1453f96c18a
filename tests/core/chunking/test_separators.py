"""Separators have the same meaning as in Java; unsupported ones are rejected, and none can hang the gateway."""

from __future__ import annotations

import re

import pytest

from hubgate.core.chunking import check_separators, chunk
from hubgate.core.chunking.java_regex import NotARegex, compile_java
from hubgate.core.chunking.separators import TimeBudget, separator
from hubgate.domain.chunking import SEPARATOR_GROUPS, ChunkingSettings, InvalidChunking


def matches(pattern: str, text: str) -> list[str]:
    return [match.group() for match in compile_java(pattern).finditer(text)]


def places(pattern: str, text: str) -> list[int]:
    return [match.start() for match in compile_java(pattern).finditer(text)]


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"\d+", "a١23", ["23"]),
        (r"\D", "1a", ["a"]),
        (r"\w", "éa_", ["a", "_"]),
        (r"[\w-]+", "a-é", ["a-"]),
        (r"[^\W\d]", "1ab", ["a", "b"]),
        (r"\s", "\u3000\t", ["\t"]),
        (r"\h", "\u3000\t", ["\u3000", "\t"]),
        (r"\R", "\r\n\n\x0b", ["\r\n", "\n", "\x0b"]),
        (r"\v", "\n\x0c", ["\n", "\x0c"]),
        (r"\Qa.b\E+", "a.bbb", ["a.bbb"]),
        (r"\Q.", ".a", ["."]),
        (r"[\p{L}&&[^a]]", "abé", ["b", "é"]),
        (r"\pL", "1é", ["é"]),
        (r"\p{Alpha}\P{Alpha}", "éa1", ["a1"]),
        (r"\p{Punct}", "a!", ["!"]),
        (r"\p{IsHan}", "漢a", ["漢"]),
        (r"(?<n>a)\k<n>", "aab", ["aa"]),
        (r"(a)\1", "aab", ["aa"]),
        (r"(?i)abc", "ABC", ["ABC"]),
        (r"(?i:a)b", "AbAB", ["Ab"]),
        (r"(?is)a.", "A\n", ["A\n"]),
        (r"(?m)^x$", "a\nx", ["x"]),
        (r"[]a]", "]b", ["]"]),
        (r"[^]a]", "]b", ["b"]),
        (r"[a\-\]]", "-]", ["-", "]"]),
        (r"[a[b-c]]", "abd", ["a", "b"]),
        (r"[.*+(]", "a.(", [".", "("]),
        (r"[:a]", ":b", [":"]),
        (r"\x{1F600}\u0041\x42\0103", "😀ABC", ["😀ABC"]),
        (r"\t|\e|\$|\#| ", "\t\x1b$# ", ["\t", "\x1b", "$", "#", " "]),
        (r"a{2,}+b|c{1,2}?", "aaabcc", ["aaab", "c", "c"]),
        (r"a*?b", "aab", ["aab"]),
        (r"(?>a+)b|(?=c)c|(?!d)e|(?<=f)g|(?<!h)i", "aab c e fg i", ["aab", "c", "e", "g", "i"]),
    ],
)
def test_pattern_matches_like_java(pattern: str, text: str, found: list[str]) -> None:
    assert matches(pattern, text) == found


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("^", "a\r\nb\n\x0cc\u2028d\n", [0, 3, 5, 8]),
        ("$", "a\r\nb\x85c", [1, 4, 6]),
        (".", "\n\r\x85\u2028\u2029\x0ca", [5, 6]),
        (r"\b", "éfoo", [1, 4]),
        (r"\B", "ab", [1]),
        (r"\A|\z", "a\n", [0, 2]),
        (r"\Z", "a\r\n", [1, 3]),
        ("", "ab", [0, 1, 2]),
        ("a*", "baac", [0, 1, 3, 4]),
    ],
)
def test_anchors_and_boundaries_match_like_java(pattern: str, text: str, found: list[int]) -> None:
    assert places(pattern, text) == found


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(",
            ")",
            "[",
            "[a",
            "*a",
            "a**",
            "|*",
            "a{2,1}",
            "[z-a]",
            "\\",
            r"\y",
            r"\1",
            r"\k<n>",
            r"\p{Foo}",
        ),
        *(
            "a{",
            "a{,3}",
            "(?x)a",
            "(?P<n>a)",
            "(?R)",
            "(?|a)",
            "(*FAIL)",
            "(?",
            r"\G",
            r"\cA",
            r"[\b]",
            "(a){e<=1}",
        ),
        *("[a--b]", "[a||b]", "[[:alpha:]]", r"\x{110000}", "(" * 500 + ")" * 500, "[" * 500),
        *("a{10001}", "a{100}{200}", "(a{1000}){1000}", "((a{100}){100}){100}"),
    ],
)
def test_rejects_invalid_or_unsupported_patterns(pattern: str) -> None:
    with pytest.raises(NotARegex):
        compile_java(pattern)


def test_error_names_each_invalid_separator() -> None:
    settings = ChunkingSettings(
        strategy="recursive", max_chunk_size=10, separators=("\n", "(", "[" + "x" * 200)
    )
    with pytest.raises(InvalidChunking, match="Java's syntax") as caught:
        check_separators(settings)
    assert [re.findall(r"Invalid value \[(.{1,3})", problem) for problem in caught.value.problems] == [
        ["(]."],
        ["[xx"],
    ]
    assert all(len(problem) < 250 for problem in caught.value.problems)


@pytest.mark.parametrize("group", SEPARATOR_GROUPS)
def test_separator_groups_compile(group: str) -> None:
    check_separators(
        ChunkingSettings(strategy="recursive", max_chunk_size=10, separators=SEPARATOR_GROUPS[group])
    )


UNDERLINES = SEPARATOR_GROUPS["markdown"][-2:]


@pytest.mark.parametrize("given", UNDERLINES)
@pytest.mark.parametrize(
    "text",
    [
        "\nTitle\n---\n",
        "\nTitle\n===\nmore\n=\n\n==\n",
        "\n  \n---\n",
        "\n---\n---\n",
        "\n\u00a0\n--\n",
        "\na\r\n--\n",
        "\n\t\r\n--\n",
        "\na\n-- \n",
        "\n",
        "\n\n\n",
        "a\n-\n",
    ],
)
def test_finds_underlined_headings_like_elasticsearch(given: str, text: str) -> None:
    plain = compile_java(given)
    assert TimeBudget(1).starts(separator(given), text) == [match.start() for match in plain.finditer(text)]


@pytest.mark.parametrize("given", UNDERLINES)
def test_searches_a_million_empty_lines_in_time(given: str) -> None:
    assert TimeBudget(60).starts(separator(given), "\n" * 1_000_000) == []


@pytest.mark.parametrize("pattern", ["(a|aa)+$", "(?>[a-z]+)[cd]", "a(?=.*$)"])
def test_slow_separator_times_out_and_is_named(pattern: str) -> None:
    with pytest.raises(InvalidChunking, match="takes too long on a text of 300001 characters") as caught:
        TimeBudget(0.1).starts(separator(pattern), "a" * 300_000 + "!")
    assert f"[{pattern}]" in caught.value.message


def test_interrupted_search_resumes_with_the_same_result() -> None:
    text = "a" * 20_000 + "1"
    assert TimeBudget(60).starts(separator("[a-z]+[0-9](?=[a-z]*)|[a-z]+x"), text) == [0]
    assert TimeBudget(60).starts(separator("[a-z]+x|1"), text) == [20_000]


def test_searches_in_one_text_share_a_time_budget() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 2.0
        return now

    patience = TimeBudget(5.0, clock)
    newline = separator("\n")
    assert [patience.starts(newline, "a\nb") for _ in range(3)] == [[1]] * 3
    with pytest.raises(InvalidChunking, match="takes too long"):
        patience.starts(newline, "a\nb")


def test_chunk_rejects_invalid_separators() -> None:
    with pytest.raises(InvalidChunking, match=re.escape("Invalid value [(]")):
        chunk("text", ChunkingSettings(strategy="recursive", max_chunk_size=10, separators=("(",)))
