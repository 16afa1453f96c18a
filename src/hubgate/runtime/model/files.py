"""The files of a model's folder, and refusing a folder with the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubgate.domain.errors import RuntimeFailed

WEIGHTS = "model.safetensors"
ONNX = ("onnx/model.onnx", "model.onnx")
"""Where a graph stands ready to be loaded; the first one that is there counts."""
TOKENIZER = "tokenizer.json"
_MOST_BYTES = 16 * 2**20
"""Of a file that only says how a model is run."""
_LONGEST_REASON = 300
_MOST = 2**31 - 1
"""No size of a model is greater."""


class TokenizerBroken(Exception):
    """A tokenizer's file cannot be used; its text says why."""


def unusable(folder: Path, reason: str) -> RuntimeFailed:
    """The error of a folder that cannot be run as it is.

    The reason names files and their keys, never a value: whoever registers a model may not be allowed to read the file.
    """
    told = f"{reason[:_LONGEST_REASON]}…" if len(reason) > _LONGEST_REASON else reason
    return RuntimeFailed(
        _printable(f"The model in {folder} cannot be run: {told}."),
        remedy="Use a sentence-transformers model or a cross-encoder with all of its files, in safetensors (BERT "
        "family) or ONNX, or serve it with another engine and register that as a dedicated endpoint.",
    )


def read_json(folder: Path, name: str, *, needed: bool = True) -> dict[str, Any]:
    """One of a folder's JSON objects; empty if there is none and none is needed.

    Raises:
        RuntimeFailed: it is missing, or not a JSON object.
    """
    try:
        content = json_of(folder, name)
    except FileNotFoundError:
        if not needed:
            return {}
        raise unusable(folder, f"{name} is missing") from None
    if not isinstance(content, dict):
        raise unusable(folder, f"{name} is not a JSON object")
    return content


def json_of(folder: Path, name: str) -> Any:
    """What one of a folder's JSON files holds.

    Raises:
        FileNotFoundError: it is missing.
        RuntimeFailed: it is no file, or not JSON.
    """
    file = folder / name
    try:
        if not file.is_file() and file.exists():  # a pipe would be waited for
            raise unusable(folder, f"{name} is not a file")
        if file.stat().st_size > _MOST_BYTES:
            raise unusable(folder, f"{name} is larger than {_MOST_BYTES // 2**20} MB")
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(folder, f"{name} cannot be read") from error


def whole(folder: Path, name: str, content: Mapping[str, Any], key: str, *, least: int = 1) -> int | None:
    """A whole number that a file gives, if it does.

    Raises:
        RuntimeFailed: it is something else, less than `least`, or more than any model has.
    """
    value = content.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise unusable(folder, f"{name} does not give {key} as a whole number from {least} to {_MOST}")
    return value


def _printable(text: str) -> str:
    """Without line ends and halves of surrogate pairs, which no message carries."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
