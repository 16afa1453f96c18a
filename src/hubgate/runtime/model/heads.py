"""The head of a model, by its own files: how token vectors become one vector or one score.

Nothing is guessed, because a wrong pooling returns vectors that look right. Missing or unknown settings are rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from hubgate.core.rerank_templates import RerankTemplate, rerank_template
from hubgate.runtime.model.files import json_of, read_json, unusable

_RERANKER_SUFFIX, _LANGUAGE_MODEL_SUFFIX = "ForSequenceClassification", "ForCausalLM"
_ACTIVATIONS = ("torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity")
"""Both give the same order as the raw score."""


class Pooling(StrEnum):
    """How token vectors become one."""

    MEAN = "mean"
    CLS = "cls"


@dataclass(frozen=True, slots=True)
class EmbeddingHead:
    """One vector a text."""

    pooling: Pooling
    normalize: bool


@dataclass(frozen=True, slots=True)
class RankingHead:
    """One raw score for a query and a text."""

    template: RerankTemplate | None = None
    """The prompt of a reranker that is a language model; `None` for a cross-encoder, which reads pairs."""
    causal: bool = False
    """Whether the score comes from the logits of tokens, not from a head."""


Head: TypeAlias = EmbeddingHead | RankingHead


def read_head(folder: Path, config: Mapping[str, Any], hidden: int) -> Head:
    """Read the head of a folder's model, given its `config.json` and the dimensions of its token vectors.

    Raises:
        RuntimeFailed: a file is missing, contradicts another, or has a setting that is not supported.
    """
    listed = config.get("architectures")
    names = tuple(map(str, listed)) if isinstance(listed, list) else ()
    template = rerank_template(*_names(folder, config))
    if any(name.endswith(_RERANKER_SUFFIX) for name in names):
        _check_cross_encoder(folder, config)
        return RankingHead(template)
    if template is not None and any(name.endswith(_LANGUAGE_MODEL_SUFFIX) for name in names):
        return RankingHead(template, causal=True)
    modules = _modules(folder)
    return EmbeddingHead(_pooling(folder, f"{modules[1]}/config.json", hidden), normalize=len(modules) == 3)


def _names(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What the model may be called: its folder, its repository in the download cache, and what it was saved from."""
    cached = (
        folder.parent.parent.name.rpartition("--")[2] if folder.parent.name == "snapshots" else folder.name
    )
    return cached, str(config.get("_name_or_path") or "")


def _check_cross_encoder(folder: Path, config: Mapping[str, Any]) -> None:
    """Which file has the activation depends on the version of sentence-transformers."""
    classes = config.get("id2label") or config.get("label2id") or {"0": "one"}
    if not isinstance(classes, dict) or len(classes) != 1:
        labels = f"{len(classes)} classes" if isinstance(classes, dict) else "classes of its own kind"
        raise unusable(folder, f"it sorts texts into {labels}, and a cross-encoder gives one score")
    own = read_json(folder, "config_sentence_transformers.json", needed=False).get("activation_fn")
    inside = config.get("sentence_transformers")
    nested = inside.get("activation_fn") if isinstance(inside, dict) else None
    value = own or nested or config.get("sbert_ce_default_activation_function")
    if value and (not isinstance(value, str) or value not in _ACTIVATIONS):
        raise unusable(
            folder,
            f"its files name an activation that is not supported; supported: {', '.join(_ACTIVATIONS)}",
        )


def _modules(folder: Path) -> list[str]:
    """The paths of the modules, which must be Transformer, Pooling and optionally Normalize."""
    try:
        entries = json_of(folder, "modules.json")
        kinds = [entry["type"].rpartition(".")[2] for entry in entries]
        paths = [entry["path"] for entry in entries]
        outside = [path for path in map(PurePath, paths) if path.is_absolute() or ".." in path.parts]
    except FileNotFoundError:
        raise unusable(folder, "modules.json is missing") from None
    except (TypeError, KeyError, AttributeError) as error:
        raise unusable(folder, "modules.json cannot be read") from error
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or paths[0]:
        raise unusable(
            folder, "modules.json lists other modules than Transformer, Pooling and perhaps Normalize"
        )
    if outside:
        raise unusable(folder, "modules.json leads out of its folder")
    return paths


def _pooling(folder: Path, name: str, hidden: int) -> Pooling:
    """The pooling mode: a word since sentence-transformers 5, before that a flag for each mode."""
    pooling = read_json(folder, name)
    flags = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value is True]
    words = {"pooling_mode_mean_tokens": Pooling.MEAN, "pooling_mode_cls_token": Pooling.CLS}
    value = pooling.get("pooling_mode") or (words.get(flags[0], flags[0]) if len(flags) == 1 else flags)
    if value not in tuple(Pooling):
        raise unusable(
            folder, f"{name} asks for a pooling that is not supported; supported: {', '.join(Pooling)}"
        )
    if pooling.get("include_prompt", True) is not True:
        raise unusable(folder, f"{name} excludes prompts from the pooling, which is not supported")
    width = pooling.get("embedding_dimension", pooling.get("word_embedding_dimension"))
    if width != hidden:
        raise unusable(folder, f"{name} and config.json do not give the same number of dimensions")
    return Pooling(value)
