"""Reading a sentence-transformers folder: what the model's own files say of pooling, normalisation and length.

Nothing is guessed: a wrong pooling gives vectors that look right and are not. What is missing or unknown is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from hubgate.domain.errors import RuntimeFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
_NO_LIMIT = 1e9
"""A tokenizer without a limit says 1e30."""


class TokenizerBroken(Exception):
    """A tokenizer's file cannot be used; its text says why."""


class Pooling(StrEnum):
    """How the vectors of the tokens become one."""

    MEAN = "mean"
    CLS = "cls"


@dataclass(frozen=True, slots=True, kw_only=True)
class BertShape:
    """The sizes of a BERT encoder, from `config.json`."""

    layers: int
    heads: int
    hidden: int
    norm_epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to run the model of one folder."""

    folder: Path
    shape: BertShape
    pooling: Pooling
    normalize: bool
    max_tokens: int
    """Special tokens included."""
    prompts: Mapping[str, str]
    default_prompt: str | None


def read_folder(folder: Path) -> Recipe:
    """Read the recipe of a sentence-transformers folder; the weights are not opened.

    Raises:
        RuntimeFailed: a file is missing, or says something this runtime does not know.
    """
    modules = _modules(folder)
    config = _config(folder)
    prompts = _read(folder, "config_sentence_transformers.json", needed=False)
    for name in (WEIGHTS, TOKENIZER):
        if not (folder / name).is_file():
            raise unusable(folder, f"{name} is missing")
    return Recipe(
        folder=folder,
        shape=_shape(folder, config),
        pooling=_pooling(folder, f"{modules[1]}/config.json", config),
        normalize=len(modules) == 3,
        max_tokens=_max_tokens(folder, config),
        prompts=prompts.get("prompts") or {},
        default_prompt=prompts.get("default_prompt_name"),
    )


def unusable(folder: Path, reason: str) -> RuntimeFailed:
    """The error of a folder that cannot be run as it is."""
    return RuntimeFailed(
        f"The model in {folder} cannot be run: {reason}.",
        remedy="Use a sentence-transformers model of the BERT family with all of its files, or serve it with another "
        "engine and register that as a dedicated endpoint.",
    )


def _read(folder: Path, name: str, *, needed: bool = True) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        if not needed:
            return {}
        raise unusable(folder, f"{name} is missing") from None
    except (OSError, ValueError) as error:
        raise unusable(folder, f"{name} cannot be read") from error
    if not isinstance(content, dict):
        raise unusable(folder, f"{name} is not a JSON object")
    return content


def _modules(folder: Path) -> list[str]:
    """The paths of the modules, after checking that they are Transformer, Pooling and perhaps Normalize."""
    try:
        entries = json.loads((folder / "modules.json").read_bytes())
        kinds = [entry["type"].rpartition(".")[2] for entry in entries]
        paths = [entry["path"] for entry in entries]
    except FileNotFoundError:
        raise unusable(folder, "modules.json is missing") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise unusable(folder, "modules.json cannot be read") from error
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or paths[0]:
        raise unusable(folder, f"modules.json lists {', '.join(kinds) or 'nothing'}, which is not understood")
    return paths


def _config(folder: Path) -> dict[str, Any]:
    config = _read(folder, "config.json")
    known = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in known.items():
        said = config.get(key, value if key == "position_embedding_type" else None)
        if said != value:
            raise unusable(folder, f"config.json says {key} = {said!r}, and only {value!r} is understood")
    return config


def _shape(folder: Path, config: Mapping[str, Any]) -> BertShape:
    try:
        shape = BertShape(
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            hidden=int(config["hidden_size"]),
            norm_epsilon=float(config["layer_norm_eps"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise unusable(folder, "config.json does not give the sizes of the model") from error
    if shape.heads < 1 or shape.hidden % shape.heads:
        raise unusable(folder, f"config.json splits {shape.hidden} numbers over {shape.heads} heads")
    return shape


def _pooling(folder: Path, name: str, config: Mapping[str, Any]) -> Pooling:
    """The one pooling mode, written as a word (since sentence-transformers 5) or as one flag for each mode."""
    pooling = _read(folder, name)
    flags = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True]
    words = {"pooling_mode_mean_tokens": Pooling.MEAN, "pooling_mode_cls_token": Pooling.CLS}
    said = pooling.get("pooling_mode") or (words.get(flags[0], flags[0]) if len(flags) == 1 else flags)
    if said not in tuple(Pooling):
        raise unusable(folder, f"{name} asks for the pooling {said or 'none'}, which is not understood")
    if pooling.get("include_prompt", True) is not True:
        raise unusable(folder, f"{name} leaves prompts out of the pooling, which is not understood")
    width = pooling.get("embedding_dimension", pooling.get("word_embedding_dimension"))
    if width != config.get("hidden_size"):
        raise unusable(folder, f"{name} pools {width} numbers, config.json has {config.get('hidden_size')}")
    return Pooling(said)


def _max_tokens(folder: Path, config: Mapping[str, Any]) -> int:
    said = _said_limit(folder, _read(folder, "sentence_bert_config.json"))
    positions = config.get("max_position_embeddings")
    if said is None or not isinstance(positions, int):
        raise unusable(folder, "no file says how many tokens it reads (max_seq_length)")
    return int(min(said, positions))


def read_limit(folder: Path) -> int | None:
    """How many tokens the model of a folder reads, special ones included; `None` if no file says so.

    The folder need not have all of the model's files, as it is not run.

    Raises:
        RuntimeFailed: a file cannot be read, or says something this runtime does not know.
    """
    said = _said_limit(folder, _read(folder, "sentence_bert_config.json", needed=False))
    positions = _read(folder, "config.json", needed=False).get("max_position_embeddings")
    if said is not None and isinstance(positions, int):
        said = min(said, positions)
    return int(said) if said is not None and said < _NO_LIMIT else None


def _said_limit(folder: Path, own: Mapping[str, Any]) -> float | None:
    """sentence-transformers' own order: its file first, then the tokenizer's."""
    if own.get("do_lower_case"):
        raise unusable(folder, "sentence_bert_config.json asks for lower case, which is not understood")
    said = own.get("max_seq_length") or _read(folder, "tokenizer_config.json", needed=False).get(
        "model_max_length"
    )
    return said if isinstance(said, int | float) and said >= 1 else None
