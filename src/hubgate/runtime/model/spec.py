"""Reading a model's folder, as sentence-transformers writes it: what to run, and what its own files say of it.

Nothing is guessed. What is missing, unknown or contradicts another file is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubgate.runtime.model.files import (
    ONNX,
    TOKENIZER,
    WEIGHTS,
    read_json,
    unusable,
    whole,
)
from hubgate.runtime.model.heads import EmbeddingHead, Head, read_head

CONFIG = "config.json"
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
class ModelSpec:
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
        return self.hidden if isinstance(self.head, EmbeddingHead) else 1


def read_model_spec(folder: Path) -> ModelSpec:
    """Read the recipe of a folder; the weights are not opened.

    Raises:
        RuntimeFailed: a file is missing, or says something this runtime does not know.
    """
    config = read_json(folder, CONFIG)
    hidden = whole(folder, CONFIG, config, "hidden_size") or whole(folder, CONFIG, config, "dim")
    if hidden is None:
        raise unusable(folder, "config.json does not give the sizes of the model")
    weights = _weights(folder, config)
    head = read_head(folder, config, hidden)
    if not (folder / TOKENIZER).is_file():
        raise unusable(folder, f"{TOKENIZER} is missing")
    prompts, default_prompt = _prompts(folder)
    return ModelSpec(
        folder=folder,
        weights=weights,
        shape=_shape(folder, config) if weights.name == WEIGHTS else None,
        hidden=hidden,
        head=head,
        max_tokens=_max_tokens(folder, config, own_file=isinstance(head, EmbeddingHead)),
        pad=_pad(folder, config),
        vocabulary=whole(folder, CONFIG, config, "vocab_size"),
        segments=_segments(folder),
        prompts=prompts,
        default_prompt=default_prompt,
    )


def _pad(folder: Path, config: Mapping[str, Any]) -> int:
    return whole(folder, CONFIG, config, "pad_token_id", least=0) or 0


def _prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    """Its prompts by their names, and the name of the default one."""
    name = "config_sentence_transformers.json"
    own = read_json(folder, name, needed=False)
    prompts, default = own.get("prompts") or {}, own.get("default_prompt_name")
    texts = isinstance(prompts, dict) and all(isinstance(text, str) for text in prompts.values())
    if not texts or not isinstance(default, str | None):
        raise unusable(folder, f"{name} has prompts that are no texts")
    return prompts, default


def _segments(folder: Path) -> bool:
    """A model gets from transformers what its tokenizer's `model_input_names` list, and everything if there is no list."""
    names = read_json(folder, "tokenizer_config.json", needed=False).get("model_input_names")
    return not isinstance(names, list) or "token_type_ids" in names


def built_from_weights(folder: Path) -> bool:
    """Whether the model whose `config.json` this is needs no ready graph: it is a BERT.

    Raises:
        RuntimeFailed: the file cannot be read.
    """
    return _odd(read_json(folder, CONFIG)) is None


def _weights(folder: Path, config: Mapping[str, Any]) -> Path:
    odd = _odd(config)
    if odd is None and (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    for name in ONNX:
        if (folder / name).is_file():
            return folder / name
    if odd is None:
        raise unusable(folder, f"{WEIGHTS} is missing")
    raise unusable(folder, f"config.json has {odd}, and there is no {ONNX[0]}")


def _odd(config: Mapping[str, Any]) -> str | None:
    """What is not as in BERT; `None` if the graph can be built."""
    known = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in known.items():
        said = config.get(key, value if key == "position_embedding_type" else None)
        if said != value:
            return f"another {key} than {value!r}, the only one that can be built from weights"
    return None


def _shape(folder: Path, config: Mapping[str, Any]) -> BertShape:
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size")
    layers, heads, hidden = (whole(folder, CONFIG, config, name) for name in names)
    epsilon = config.get("layer_norm_eps")
    if layers is None or heads is None or hidden is None or not isinstance(epsilon, float | int):
        raise unusable(folder, "config.json does not give the sizes of the model")
    if not 0 < epsilon < 1:
        raise unusable(folder, "config.json has a layer_norm_eps that is not between 0 and 1")
    if hidden % heads:
        raise unusable(folder, f"config.json splits {hidden} numbers over {heads} heads")
    return BertShape(layers=layers, heads=heads, hidden=hidden, norm_epsilon=float(epsilon))


def _max_tokens(folder: Path, config: Mapping[str, Any], *, own_file: bool) -> int:
    said = _said_limit(folder, read_json(folder, "sentence_bert_config.json", needed=own_file))
    places = _places(folder, config)
    if places is None or (said is None and own_file):
        raise unusable(folder, "no file says how many tokens it reads (max_seq_length)")
    return int(min(said or places, places))


def _places(folder: Path, config: Mapping[str, Any]) -> int | None:
    """How many positions the model has for tokens."""
    places = whole(folder, CONFIG, config, "max_position_embeddings")
    if places is None:
        return None
    lost = _pad(folder, config) + 1 if str(config.get("model_type")) in _PLACES_AFTER_PAD else 0
    if places <= lost:
        raise unusable(folder, f"config.json leaves none of {places} positions to tokens")
    return places - lost


def read_max_tokens(folder: Path) -> int | None:
    """How many tokens the model of a folder reads, special ones included; `None` if no file says so.

    The folder need not have all of the model's files, as it is not run.

    Raises:
        RuntimeFailed: a file cannot be read, or says something this runtime does not know.
    """
    said = _said_limit(folder, read_json(folder, "sentence_bert_config.json", needed=False))
    places = _places(folder, read_json(folder, CONFIG, needed=False))
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
