"""Chunking on the page that edits a model: Elasticsearch's settings as form fields, and a preview of the chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from hubgate.core.chunking import Chunk
from hubgate.domain.chunking import SEPARATOR_GROUPS, ChunkingSettings
from hubgate.domain.errors import InvalidRequest

FIT = "fit"
"""The choice without chunking settings: chunks fit the model's token limit."""
STRATEGIES = {
    FIT: (),
    "sentence": ("max_chunk_size", "sentence_overlap"),
    "word": ("max_chunk_size", "overlap"),
    "recursive": ("max_chunk_size", "separator_group"),
    "none": (),
}
"""The fields of each strategy."""
CUSTOM = "own"
"""The separator group of custom separators: regular expressions, one per line of the form field."""
SEPARATORS = "separators"
_ESCAPES = str.maketrans({"\n": r"\n", "\r": r"\r"})  # equivalent in a regular expression


def parse_chunking(
    form: Mapping[str, str], faults: dict[str, str], old: ChunkingSettings | None = None
) -> dict[str, Any] | None:
    """Read Elasticsearch's chunking settings from a submitted form; `None` for `FIT`.

    Args:
        form: the submitted fields.
        faults: receives the locale key of a message for each invalid field.
        old: the settings before. Custom separators that were not edited keep their exact form, including line breaks.
    """
    strategy = form.get("strategy", "")
    if strategy not in STRATEGIES:
        raise InvalidRequest("Unknown chunking strategy.")
    if strategy == FIT:
        return None
    settings: dict[str, Any] = {"strategy": strategy}
    for name in STRATEGIES[strategy]:
        text = form.get(name, "")
        if name == "separator_group":
            settings |= _separators(form, faults, old)
        elif text.isdecimal() and len(text) < 10:
            settings[name] = int(text)
        else:
            faults[name] = "fault.whole"
    return settings


def chunking_fields(chunking: ChunkingSettings | None) -> dict[str, object]:
    """The form fields of these settings: the strategy, and what it needs."""
    if chunking is None:
        return {"strategy": FIT}
    settings = chunking.as_dict()
    separators = settings.pop(SEPARATORS, None)
    if separators is None:
        return settings
    groups = (group for group, known in SEPARATOR_GROUPS.items() if list(known) == list(separators))
    group = next(groups, CUSTOM)
    return {
        **settings,
        "separator_group": group,
        **({SEPARATORS: _lines(separators)} if group == CUSTOM else {}),
    }


def _separators(
    form: Mapping[str, str], faults: dict[str, str], old: ChunkingSettings | None
) -> dict[str, Any]:
    group = form.get("separator_group", "")
    if group != CUSTOM:
        return {"separator_group": group}
    lines = form.get(SEPARATORS, "").replace("\r\n", "\n").strip("\n")
    if not lines:
        faults[SEPARATORS] = "fault.missing"
    if old is not None and old.separators and lines == _lines(old.separators):
        return {SEPARATORS: list(old.separators)}
    return {SEPARATORS: [line for line in lines.split("\n") if line]}


def _lines(separators: Sequence[str]) -> str:
    return "\n".join(separator.translate(_ESCAPES) for separator in separators)


class Piece(NamedTuple):
    """A part of the text, with the numbers (from 1) of the chunks that contain it and of those that begin with it."""

    text: str
    chunks: tuple[int, ...]
    begins: tuple[int, ...]


def split_at_chunks(text: str, chunks: Sequence[Chunk]) -> list[Piece]:
    """Split the text wherever a chunk begins or ends, so that overlaps appear once."""
    cuts = sorted({0, len(text), *(edge for chunk in chunks for edge in (chunk.start, chunk.end))})
    starting: dict[int, list[int]] = {}
    for number, chunk in enumerate(chunks, 1):
        starting.setdefault(chunk.start, []).append(number)
    pieces: list[Piece] = []
    inside: tuple[int, ...] = ()
    for start, end in pairwise(cuts):
        inside = tuple(n for n in (*inside, *starting.get(start, ())) if chunks[n - 1].end > start)
        begins = tuple(n for n in inside if chunks[n - 1].start == start)
        pieces.append(Piece(text[start:end], inside, begins))
    return pieces
