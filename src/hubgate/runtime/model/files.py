"""Reading the files of a model's folder, and the error for a folder that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubgate.domain.errors import RuntimeFailed

WEIGHTS = "model.safetensors"
ONNX = ("onnx/model.onnx", "model.onnx")
OPENVINO = ("openvino/openvino_model.xml", "openvino_model.xml")
"""OpenVINO's own format; the weights are beside it, in a file that ends in `.bin`."""
GRAPHS = (*ONNX, *OPENVINO)
"""Where a ready graph may be; the first that exists is used."""
TOKENIZER = "tokenizer.json"
TRANSFORMER = "sentence_bert_config.json"
"""How sentence-transformers runs the model: its limit of tokens, and whether it lower-cases texts."""
_MAX_BYTES = 16 * 2**20
"""Of a configuration file."""
_MAX_REASON = 300
_MAX_NUMBER = 2**31 - 1


class TokenizerBroken(Exception):
    """The file of a tokenizer cannot be used. The text is the reason."""


REMEDY = (
    "Use a sentence-transformers model or a reranker with all of its files, in safetensors (BERT family), "
    "ONNX or OpenVINO's format, or serve it with another engine and register that as a dedicated endpoint."
)


def unusable(folder: Path, reason: str, *, remedy: str = REMEDY) -> RuntimeFailed:
    """The error for a folder that cannot be run.

    The reason names files and keys, never a value: whoever registers a model may not be allowed to read the file.
    """
    shown = f"{reason[:_MAX_REASON]}…" if len(reason) > _MAX_REASON else reason
    return RuntimeFailed(_printable(f"The model in {folder} cannot be run: {shown}."), remedy=remedy)


def smaller_weights(folder: Path, tokens: int, weights: int) -> RuntimeFailed:
    """The error for a tokenizer that has more tokens than its model has weights for."""
    return unusable(
        folder,
        f"its tokenizer has more tokens ({tokens}) than its weights ({weights})",
        remedy=f"Use the {TOKENIZER} that the model was trained with, or export the model again with its own tokenizer.",
    )


def read_json(folder: Path, name: str, *, needed: bool = True) -> dict[str, Any]:
    """Read a JSON object of the folder; empty if it is missing and not needed.

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
    """Read a JSON file of the folder.

    Raises:
        FileNotFoundError: it is missing.
        RuntimeFailed: it is not a file, or not JSON.
    """
    file = folder / name
    try:
        if not file.is_file() and file.exists():  # reading a pipe would block
            raise unusable(folder, f"{name} is not a file")
        if file.stat().st_size > _MAX_BYTES:
            raise unusable(folder, f"{name} is larger than {_MAX_BYTES // 2**20} MB")
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(folder, f"{name} cannot be read") from error


def whole(folder: Path, name: str, content: Mapping[str, Any], key: str, *, least: int = 1) -> int | None:
    """A whole number of a file; `None` if the key is missing.

    Raises:
        RuntimeFailed: it is not a whole number, or out of range.
    """
    value = content.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MAX_NUMBER:
        raise unusable(folder, f"{name} does not give {key} as a whole number from {least} to {_MAX_NUMBER}")
    return value


def _printable(text: str) -> str:
    """Replace line ends and lone surrogates, which a message cannot contain."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
