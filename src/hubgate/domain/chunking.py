"""Chunking settings, with Elasticsearch's rules and messages.

Fields, bounds and defaults are those of Elasticsearch 9.4; the maximum length of a separator is hubgate's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from hubgate.domain.errors import InvalidEndpoint

Strategy: TypeAlias = Literal["sentence", "word", "recursive", "none"]

MAX_SEPARATORS = 50
MAX_SEPARATOR_LENGTH = 1000

SEPARATOR_GROUPS: Mapping[str, tuple[str, ...]] = {
    "plaintext": (r"(?<!\n)\n\n(?!\n)", r"(?<!\n)\n(?!\n)"),
    "markdown": (
        *("\n" + "#" * level + " " for level in range(1, 7)),
        "\n" + r"^(?!\s*$).*\n-{1,}\n",
        "\n" + r"^(?!\s*$).*\n={1,}\n",
    ),
}
"""Regular expressions in Java's syntax, coarsest first."""

_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "sentence": ("max_chunk_size", "sentence_overlap"),
    "word": ("max_chunk_size", "overlap"),
    "recursive": ("max_chunk_size", "separators"),
    "none": (),
}
MIN_CHUNK_SIZE: Mapping[str, int] = {"sentence": 20, "word": 10, "recursive": 10}
"""Elasticsearch's minimum for `max_chunk_size`."""
_LABEL = {"sentence": "Sentence based", "word": "Word based", "recursive": "Recursive", "none": "No"}


class InvalidChunking(InvalidEndpoint):
    """The chunking settings are invalid; `problems` has one message per error."""

    def __init__(self, problems: tuple[str, ...], *, remedy: str = "") -> None:
        super().__init__("; ".join(problems), remedy=remedy)
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkingSettings:
    """How texts are split into chunks. Sizes and `overlap` are in words; options of other strategies are `None`.

    Raises:
        InvalidChunking: a value is missing, out of range, or belongs to another strategy.
    """

    strategy: Strategy
    max_chunk_size: int | None = None
    sentence_overlap: int | None = None
    """How many sentences of the previous chunk are repeated: 0 or 1."""
    overlap: int | None = None
    separators: tuple[str, ...] | None = None
    """Regular expressions in Java's syntax; `hubgate.core.chunking` validates them."""

    def __post_init__(self) -> None:
        options = {
            "max_chunk_size": self.max_chunk_size,
            "sentence_overlap": self.sentence_overlap,
            "overlap": self.overlap,
            "separators": self.separators,
        }
        given = {name: value for name, value in options.items() if value is not None}
        strategy = _strategy(self.strategy)
        problems = [*_unknown_options(strategy, given, _OPTIONS[strategy]), *_value_errors(strategy, given)]
        if problems:
            raise InvalidChunking(tuple(problems))

    def as_dict(self) -> dict[str, Any]:
        """The settings as Elasticsearch returns them: only this strategy's options, and no separator group."""
        options = {name: getattr(self, name) for name in _OPTIONS[self.strategy]}
        if self.separators is not None:
            options["separators"] = list(self.separators)
        return {"strategy": self.strategy, **options}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkFit:
    """The largest chunk that fits the model's token limit, in words."""

    words: int
    """For `language`; 0 if the prefix alone exceeds the limit."""
    language: str | None = None
    """The tested language with the most tokens per word; `None` if `words` is an estimate."""
    words_in_english: int | None = None


def parse_chunking_settings(given: Mapping[str, object] | None) -> ChunkingSettings:
    """Parse the `chunking_settings` of a request; `None` and `{}` mean the default.

    Raises:
        InvalidChunking: lists every error.
    """
    if not given:
        return DEFAULT_CHUNKING
    strategy = _strategy(given.get("strategy"))
    if strategy == "none":
        return ChunkingSettings(strategy=strategy)
    allowed = (*_OPTIONS[strategy], "separator_group") if strategy == "recursive" else _OPTIONS[strategy]
    problems = _unknown_options(strategy, (name for name in given if name != "strategy"), allowed)
    options: dict[str, Any] = {name: given[name] for name in allowed if given.get(name) is not None}
    if strategy == "sentence":
        options.setdefault("sentence_overlap", 1)
    if strategy == "recursive":
        problems += _expand_group(options)
    problems += _value_errors(strategy, options)
    if problems:
        raise InvalidChunking(tuple(problems))
    return ChunkingSettings(strategy=strategy, **options)


def _strategy(word: object) -> Strategy:
    if word is None:
        raise InvalidChunking(("Can't generate Chunker without ChunkingStrategy provided",))
    folded = word.lower() if isinstance(word, str) else word
    if folded not in get_args(Strategy):
        raise InvalidChunking(
            (f"Invalid chunkingStrategy {str(word)[:100]}",),
            remedy=f"Use one of {', '.join(get_args(Strategy))}.",
        )
    return cast("Strategy", folded)


def _unknown_options(strategy: Strategy, names: Iterable[str], allowed: tuple[str, ...]) -> list[str]:
    unknown = ", ".join(name[:100] for name in names if name not in allowed)
    label = _LABEL[strategy]
    return [f"{label} chunking settings can not have the following settings: [{unknown}]"] if unknown else []


def _value_errors(strategy: Strategy, options: Mapping[str, Any]) -> list[str]:
    if strategy == "none":
        return []
    size: Any = options.get("max_chunk_size")
    errors = _whole_number("max_chunk_size", size, low=MIN_CHUNK_SIZE[strategy])
    if strategy == "sentence":
        errors += _sentence_overlap(options.get("sentence_overlap"))
    elif strategy == "word":
        errors += _whole_number("overlap", options.get("overlap"), high=None if errors else size // 2)
    else:
        errors += _separators(options.get("separators"))
    return errors


def _is_integer(value: object) -> bool:
    """Whether Java would accept it as an `Integer`."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31


def _wrong_type(name: str, value: object, wanted: str) -> str:
    return (
        f"field [{name}] is not of the expected type. "
        f"The value [{str(value)[:100]}] cannot be converted to a [{wanted}]"
    )


def _whole_number(name: str, value: Any, *, low: int = 1, high: int | None = None) -> list[str]:
    if value is None:
        return [f"[chunking_settings] does not contain the required setting [{name}]"]
    if not _is_integer(value):
        return [_wrong_type(name, value, "Integer")]
    if value <= 0:
        return [f"[chunking_settings] Invalid value [{value}]. [{name}] must be a positive integer"]
    # Elasticsearch prints the numbers of these two as doubles.
    invalid = f"[chunking_settings] Invalid value [{value:.1f}]. [{name}]"
    if value < low:
        return [f"{invalid} must be greater than or equal to [{low:.1f}]"]
    if high is not None and value > high:
        return [f"{invalid} must be less than or equal to [{high:.1f}]"]
    return []


def _sentence_overlap(value: object) -> list[str]:
    if value is None:
        return ["[chunking_settings] does not contain the required setting [sentence_overlap]"]
    if not _is_integer(value):
        return [_wrong_type("sentence_overlap", value, "Integer")]
    return [] if value in {0, 1} else [f"sentence_overlap[{value}] must be either 0 or 1"]


def _expand_group(options: dict[str, Any]) -> list[str]:
    """Replace a separator group by its `separators`, and default to the plain text group."""
    group = options.pop("separator_group", None)
    if isinstance(options.get("separators"), list):
        options["separators"] = tuple(options["separators"])
    if group is None:
        options.setdefault("separators", SEPARATOR_GROUPS["plaintext"])
        return []
    if "separators" in options:
        return ["Recursive chunking settings can not have both [separators] and [separator_group]"]
    expanded = SEPARATOR_GROUPS.get(group.lower()) if isinstance(group, str) else None
    options["separators"] = expanded or SEPARATOR_GROUPS["plaintext"]
    if expanded is None:
        known = ", ".join(SEPARATOR_GROUPS)
        return [
            f"[chunking_settings] Invalid value [{str(group)[:100]}]. [separator_group] must be one of [{known}]"
        ]
    return []


def _separators(value: object) -> list[str]:
    if value is None:
        return ["[chunking_settings] does not contain the required setting [separators]"]
    if not isinstance(value, tuple) or not all(isinstance(separator, str) for separator in value):
        return [_wrong_type("separators", value, "List of String")]
    if not value:
        return ["[chunking_settings] Invalid value empty list. [separators] must be a non-empty list"]
    if len(value) > MAX_SEPARATORS:
        count = f"{len(value)} separators"
        return [
            f"[chunking_settings] Invalid value [{count}]. [separators] must have at most [{MAX_SEPARATORS}]"
        ]
    return [
        f"[chunking_settings] Invalid value [{separator[:40]}…]. "
        f"A separator must be at most [{MAX_SEPARATOR_LENGTH}] characters long, not [{len(separator)}]"
        for separator in value
        if len(separator) > MAX_SEPARATOR_LENGTH
    ]


DEFAULT_CHUNKING = ChunkingSettings(strategy="sentence", max_chunk_size=250, sentence_overlap=1)
