"""Reading a model's folder, as sentence-transformers writes it.

Nothing is guessed. A folder with missing, unknown or contradictory settings is rejected with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubgate.domain.errors import RuntimeFailed
from hubgate.runtime.model.files import (
    GRAPHS,
    TOKENIZER,
    TRANSFORMER,
    WEIGHTS,
    read_json,
    unusable,
    whole,
)
from hubgate.runtime.model.heads import EmbeddingHead, Head, RankingHead, read_head

CONFIG = "config.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_NAMED_PROMPTS = ("document", "query")
"""Prompts that sentence-transformers always has; empty ones, if the file has none."""
_NO_LIMIT = 1e9
"""A tokenizer without a limit has 1e30."""
_PLACES_AFTER_PAD = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})
"""Their positions start after the padding's id, so they have fewer than their configuration says."""

_BERT = {
    "model_type": ("bert",),
    "hidden_act": ("gelu", "gelu_python"),
    "position_embedding_type": ("absolute",),
}
"""Settings of `config.json` that a graph can be built for; the first value is transformers' default."""
_NORM_EPSILON = 1e-12
"""Transformers' default."""


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
    """A safetensors file of a BERT, or a graph of any encoder or reranker."""
    shape: BertShape | None
    """The graph to build around the weights; `None` if the file is the whole graph."""
    hidden: int
    """Dimensions of a token vector."""
    head: Head
    max_tokens: int
    """Special tokens included."""
    pad: int
    """The id of the padding token."""
    vocabulary: int | None
    """How many token ids the weights have, by `config.json`."""
    segments: bool
    """Whether the model gets segment ids, which separate the query from the text."""
    truncate_left: bool
    """Whether texts that are too long lose their beginning, unless the call says which side."""
    prompts: Mapping[str, str]
    default_prompt: str | None

    @property
    def numbers(self) -> Path:
        """The file that has the weights: OpenVINO's graphs are in one of their own."""
        return self.weights.with_suffix(".bin") if self.weights.suffix == ".xml" else self.weights

    @property
    def width(self) -> int:
        """Dimensions of a vector, or 1 for a score."""
        return self.hidden if isinstance(self.head, EmbeddingHead) else 1


def read_model_spec(folder: Path, *, downloaded: bool = True) -> ModelSpec:
    """Read the specification of a folder's model. The weights are not opened.

    Args:
        folder: of the model.
        downloaded: whether its weights are there. Without them all other files are checked.

    Raises:
        RuntimeFailed: a file is missing, or has a setting that is not supported.
    """
    config = read_json(folder, CONFIG)
    hidden = whole(folder, CONFIG, config, "hidden_size") or whole(folder, CONFIG, config, "dim")
    if hidden is None:
        raise unusable(folder, "config.json does not give the sizes of the model")
    weights = _weights(folder, config) if downloaded else folder / GRAPHS[0]
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
        max_tokens=_max_tokens(folder, config, head),
        pad=_pad(folder, config),
        vocabulary=whole(folder, CONFIG, config, "vocab_size"),
        segments=_segments(folder),
        truncate_left=_truncate_left(folder, head),
        prompts=prompts,
        default_prompt=default_prompt,
    )


def _pad(folder: Path, config: Mapping[str, Any]) -> int:
    return whole(folder, CONFIG, config, "pad_token_id", least=0) or 0


def _prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    """The prompts by name, and the name of the default one."""
    name = "config_sentence_transformers.json"
    own = read_json(folder, name, needed=False)
    prompts, default = own.get("prompts") or {}, own.get("default_prompt_name")
    texts = isinstance(prompts, dict) and all(isinstance(text, str | None) for text in prompts.values())
    if not texts or not isinstance(default, str | None):
        raise unusable(folder, f"{name} has prompts that are not text")
    if default not in {None, *_NAMED_PROMPTS, *prompts}:
        raise unusable(folder, f"{name} names a default prompt that is not among its prompts")
    return {key: text or "" for key, text in prompts.items()}, default


def _segments(folder: Path) -> bool:
    """Transformers passes what the tokenizer's `model_input_names` lists, or everything if there is no list."""
    names = read_json(folder, _TOKENIZER_CONFIG, needed=False).get("model_input_names")
    return not isinstance(names, list) or "token_type_ids" in names


def _truncate_left(folder: Path, head: Head) -> bool:
    side = read_json(folder, _TOKENIZER_CONFIG, needed=False).get("truncation_side", "right")
    if not isinstance(side, str) or side not in {"left", "right"}:
        raise unusable(folder, f"{_TOKENIZER_CONFIG} does not give truncation_side as left or right")
    pairs = isinstance(head, RankingHead) and head.template is None
    if side == "left" and pairs:
        raise unusable(folder, f"{_TOKENIZER_CONFIG} sets truncation_side, which is not supported for pairs")
    return side == "left" and not isinstance(head, RankingHead)


def built_from_weights(folder: Path) -> bool:
    """Whether the model is a BERT, so that its graph can be built from its weights.

    Raises:
        RuntimeFailed: the file cannot be read.
    """
    return _difference_from_bert(read_json(folder, CONFIG)) is None


def _weights(folder: Path, config: Mapping[str, Any]) -> Path:
    difference = _difference_from_bert(config)
    if difference is None and (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    for name in GRAPHS:
        if (folder / name).is_file():
            return folder / name
    if difference is None:
        raise unusable(folder, f"{WEIGHTS} is missing")
    raise unusable(folder, f"config.json has {difference}, and there is no {GRAPHS[0]}")


def _difference_from_bert(config: Mapping[str, Any]) -> str | None:
    """The first setting that differs from BERT; `None` if the graph can be built."""
    for key, (expected, *synonyms) in _BERT.items():
        actual = config.get(key, None if key == "model_type" else expected)
        if actual != expected and actual not in synonyms:
            return f"another {key} than {expected!r}, the only one that can be built from weights"
    return None


def _shape(folder: Path, config: Mapping[str, Any]) -> BertShape:
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size")
    layers, heads, hidden = (whole(folder, CONFIG, config, name) for name in names)
    epsilon = config.get("layer_norm_eps", _NORM_EPSILON)
    if layers is None or heads is None or hidden is None or not isinstance(epsilon, float | int):
        raise unusable(folder, "config.json does not give the sizes of the model")
    if not 0 < epsilon < 1:
        raise unusable(folder, "config.json has a layer_norm_eps that is not between 0 and 1")
    if hidden % heads:
        raise unusable(folder, f"config.json splits {hidden} numbers over {heads} heads")
    return BertShape(layers=layers, heads=heads, hidden=hidden, norm_epsilon=float(epsilon))


def _max_tokens(folder: Path, config: Mapping[str, Any], head: Head) -> int:
    limit = _configured_limit(folder, read_json(folder, TRANSFORMER, needed=False))
    places = _places(folder, config)
    if places is None:
        raise unusable(folder, "no file says how many tokens it reads (max_position_embeddings)")
    of_template = head.template.max_tokens if isinstance(head, RankingHead) and head.template else places
    return int(min(limit or places, places, of_template))


def _places(folder: Path, config: Mapping[str, Any]) -> int | None:
    """How many positions the model has."""
    places = whole(folder, CONFIG, config, "max_position_embeddings")
    if places is None:
        return None
    lost = _pad(folder, config) + 1 if str(config.get("model_type")) in _PLACES_AFTER_PAD else 0
    if places <= lost:
        raise unusable(folder, f"config.json leaves none of {places} positions to tokens")
    return places - lost


def read_max_tokens(folder: Path) -> int | None:
    """How many tokens a model reads, special ones included; `None` if no file says so.

    For models that run elsewhere: the folder need not have all files, and a file that cannot be read says nothing.
    """
    limit = _known(lambda: _configured_limit(folder, read_json(folder, TRANSFORMER, needed=False)))
    places = _known(lambda: _places(folder, read_json(folder, CONFIG, needed=False)))
    if limit is not None and places is not None:
        limit = min(limit, places)
    return int(limit) if limit is not None and limit < _NO_LIMIT else None


def _known(read: Callable[[], float | None]) -> float | None:
    try:
        return read()
    except RuntimeFailed:
        return None


def _configured_limit(folder: Path, own: Mapping[str, Any]) -> float | None:
    """The limit by sentence-transformers' file, or by the tokenizer's."""
    limit = own.get("max_seq_length") or read_json(folder, _TOKENIZER_CONFIG, needed=False).get(
        "model_max_length"
    )
    return limit if isinstance(limit, int | float) and limit >= 1 else None
