"""How texts are cut, in the form of a model: Elasticsearch's settings by fields, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubgate.domain.chunking import SEPARATOR_GROUPS, ChunkingSettings
from hubgate.domain.errors import InvalidRequest

FIT = "fit"
"""The way of an endpoint without settings: no chunk is longer than the model reads."""
STRATEGIES = {
    FIT: (),
    "sentence": ("max_chunk_size", "sentence_overlap"),
    "word": ("max_chunk_size", "overlap"),
    "recursive": ("max_chunk_size", "separator_group"),
    "none": (),
}
"""How texts are cut, and the fields that each way has."""
OWN = "own"
"""The group of separators that the operator writes: regular expressions, one a line."""
SEPARATORS = "separators"
_ESCAPES = str.maketrans({"\n": r"\n", "\r": r"\r"})
"""Of what ends a line; in a regular expression both mean the same."""


def chunking_of(
    form: Mapping[str, str], faults: dict[str, str], old: ChunkingSettings | None = None
) -> dict[str, Any] | None:
    """The chunking settings of a sent form, in Elasticsearch's words; fields that cannot be read go to the faults.

    `None` where the model decides.

    Args:
        form: the sent fields.
        faults: the key of the words by the field's name.
        old: settings whose own separators stay, letter by letter, where nobody has changed them.
    """
    strategy = form.get("strategy", "")
    if strategy not in STRATEGIES:
        raise InvalidRequest("This way to cut texts is not known.")
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


def chunk_fields(chunking: ChunkingSettings | None) -> dict[str, object]:
    """The fields in which these settings stand; what a strategy does not know is not there."""
    if chunking is None:
        return {"strategy": FIT}
    settings = chunking.as_dict()
    separators = settings.pop(SEPARATORS, None)
    if separators is None:
        return settings
    groups = (group for group, known in SEPARATOR_GROUPS.items() if list(known) == list(separators))
    group = next(groups, OWN)
    return {
        **settings,
        "separator_group": group,
        **({SEPARATORS: _lines(separators)} if group == OWN else {}),
    }


def _separators(
    form: Mapping[str, str], faults: dict[str, str], old: ChunkingSettings | None
) -> dict[str, Any]:
    group = form.get("separator_group", "")
    if group != OWN:
        return {"separator_group": group}
    lines = form.get(SEPARATORS, "").replace("\r\n", "\n").strip("\n")
    if not lines:
        faults[SEPARATORS] = "fault.missing"
    same = old is not None and old.separators and lines == _lines(old.separators)
    kept = old.separators if old is not None and same else None
    return {SEPARATORS: list(kept or filter(None, lines.split("\n")))}


def _lines(separators: Sequence[str]) -> str:
    return "\n".join(separator.translate(_ESCAPES) for separator in separators)
