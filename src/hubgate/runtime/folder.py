"""Reading a model's folder, as sentence-transformers writes it: what to run, and what its own files say of it.

Nothing is guessed. What is missing, unknown or contradicts another file is refused with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubgate.runtime.files import ONNX, TOKENIZER, WEIGHTS, TokenizerBroken, read_json, unusable
from hubgate.runtime.heads import Embedding, Pooling, read_head

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hubgate.runtime.heads import Head

__all__ = [
    "ONNX",
    "TOKENIZER",
    "WEIGHTS",
    "BertShape",
    "Pooling",
    "Recipe",
    "TokenizerBroken",
    "built_from_weights",
    "read_folder",
    "read_limit",
    "unusable",
]

_NO_LIMIT = 1e9
"""A tokenizer without a limit says 1e30."""
_PLACES_AFTER_PAD = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})
"""Their positions are counted from behind the padding's id, so that they have fewer than they say."""


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
    weights: Path
    """A safetensors file of a BERT, or a graph in ONNX of any encoder."""
    shape: BertShape | None
    """What to build around the weights; `None` if the file is the whole graph."""
    hidden: int
    """Numbers of a token's vector."""
    head: Head
    max_tokens: int
    """Special tokens included."""
    pad: int
    """The id of the token that fills up."""
    vocabulary: int | None
    """How many ids the weights know, by `config.json`."""
    segments: bool
    """Whether the model is told which tokens are the query's and which the text's."""
    prompts: Mapping[str, str]
    default_prompt: str | None

    @property
    def width(self) -> int:
        """Numbers of one answer: of a vector, or 1 for a score."""
        return self.hidden if isinstance(self.head, Embedding) else 1


def read_folder(folder: Path) -> Recipe:
    """Read the recipe of a folder; the weights are not opened.

    Raises:
        RuntimeFailed: a file is missing, or says something this runtime does not know.
    """
    config = read_json(folder, "config.json")
    hidden, pad = config.get("hidden_size", config.get("dim")), config.get("pad_token_id") or 0
    if not isinstance(hidden, int) or not isinstance(pad, int):
        raise unusable(folder, "config.json does not give the sizes of the model")
    weights = _weights(folder, config)
    head = read_head(folder, config, hidden)
    if not (folder / TOKENIZER).is_file():
        raise unusable(folder, f"{TOKENIZER} is missing")
    prompts = read_json(folder, "config_sentence_transformers.json", needed=False)
    return Recipe(
        folder=folder,
        weights=weights,
        shape=_shape(folder, config) if weights.name == WEIGHTS else None,
        hidden=hidden,
        head=head,
        max_tokens=_max_tokens(folder, config, own_file=isinstance(head, Embedding)),
        pad=pad,
        vocabulary=config.get("vocab_size"),
        segments=_segments(folder),
        prompts=prompts.get("prompts") or {},
        default_prompt=prompts.get("default_prompt_name"),
    )


def _segments(folder: Path) -> bool:
    """A model gets from transformers what its tokenizer's `model_input_names` list, and everything if there is no list."""
    names = read_json(folder, "tokenizer_config.json", needed=False).get("model_input_names")
    return not isinstance(names, list) or "token_type_ids" in names


def built_from_weights(folder: Path) -> bool:
    """Whether the model whose `config.json` this is needs no ready graph: it is a BERT.

    Raises:
        RuntimeFailed: the file cannot be read.
    """
    return _odd(read_json(folder, "config.json")) is None


def _weights(folder: Path, config: Mapping[str, Any]) -> Path:
    odd = _odd(config)
    if odd is None and (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    for name in ONNX:
        if (folder / name).is_file():
            return folder / name
    if odd is None:
        raise unusable(folder, f"{WEIGHTS} is missing")
    raise unusable(folder, f"config.json says {odd}, and there is no {ONNX[0]}")


def _odd(config: Mapping[str, Any]) -> str | None:
    """What is not as in BERT; `None` if the graph can be built."""
    known = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in known.items():
        said = config.get(key, value if key == "position_embedding_type" else None)
        if said != value:
            return f"{key} = {said!r} where only {value!r} can be built from weights"
    return None


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


def _max_tokens(folder: Path, config: Mapping[str, Any], *, own_file: bool) -> int:
    said = _said_limit(folder, read_json(folder, "sentence_bert_config.json", needed=own_file))
    places = _places(config)
    if places is None or (said is None and own_file):
        raise unusable(folder, "no file says how many tokens it reads (max_seq_length)")
    return int(min(said or places, places))


def _places(config: Mapping[str, Any]) -> int | None:
    """How many positions the model has for tokens."""
    places = config.get("max_position_embeddings")
    if not isinstance(places, int):
        return None
    lost = (config.get("pad_token_id") or 0) + 1 if config.get("model_type") in _PLACES_AFTER_PAD else 0
    return places - lost


def read_limit(folder: Path) -> int | None:
    """How many tokens the model of a folder reads, special ones included; `None` if no file says so.

    The folder need not have all of the model's files, as it is not run.

    Raises:
        RuntimeFailed: a file cannot be read, or says something this runtime does not know.
    """
    said = _said_limit(folder, read_json(folder, "sentence_bert_config.json", needed=False))
    places = _places(read_json(folder, "config.json", needed=False))
    if said is not None and places is not None:
        said = min(said, places)
    return int(said) if said is not None and said < _NO_LIMIT else None


def _said_limit(folder: Path, own: Mapping[str, Any]) -> float | None:
    """sentence-transformers' own order: its file first, then the tokenizer's."""
    if own.get("do_lower_case"):
        raise unusable(folder, "sentence_bert_config.json asks for lower case, which is not understood")
    said = own.get("max_seq_length") or read_json(folder, "tokenizer_config.json", needed=False).get(
        "model_max_length"
    )
    return said if isinstance(said, int | float) and said >= 1 else None
