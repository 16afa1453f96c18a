"""The files of a model's folder, and refusing a folder with the reason."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hubgate.domain.errors import RuntimeFailed

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = "model.safetensors"
ONNX = ("onnx/model.onnx", "model.onnx")
"""Where a graph stands ready to be loaded; the first one that is there counts."""
TOKENIZER = "tokenizer.json"


class TokenizerBroken(Exception):
    """A tokenizer's file cannot be used; its text says why."""


def unusable(folder: Path, reason: str) -> RuntimeFailed:
    """The error of a folder that cannot be run as it is."""
    return RuntimeFailed(
        f"The model in {folder} cannot be run: {reason}.",
        remedy="Use a sentence-transformers model or a cross-encoder with all of its files, in safetensors (BERT "
        "family) or ONNX, or serve it with another engine and register that as a dedicated endpoint.",
    )


def read_json(folder: Path, name: str, *, needed: bool = True) -> dict[str, Any]:
    """One of a folder's JSON objects; empty if there is none and none is needed.

    Raises:
        RuntimeFailed: it is missing, or not a JSON object.
    """
    try:
        content = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        if not needed:
            return {}
        raise unusable(folder, f"{name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(folder, f"{name} cannot be read") from error
    if not isinstance(content, dict):
        raise unusable(folder, f"{name} is not a JSON object")
    return content
