"""Comparing the names of models: the same model has another name at each server, and in each packaging."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

_PACKAGING = re.compile(
    r"([-._](gguf|ggml|onnx|openvino|ov|mlx|awq|gptq|bnb|qat|dwq|hf|fp8|fp16|bf16|f16|f32|int4|int8|uint8|w\d+a\d+|mxfp\d|nvfp4"
    r"|[0-9]bit|i?q[0-9]\w*|quantized|optimized|dynamic|imatrix|i1))+$"
)
"""Suffixes of repackaged weights. Other suffixes are of fine-tunes."""
_LISTED = 12
"""Names in a message."""
_LONGEST = 100


@lru_cache(512)  # many endpoints run the same few models
def base_name(model: str | None) -> str:
    """The name of the original in lower case, without its owner or folder: `Org/Model-GGUF:Q8_0` is `model`.

    A tag that is not of a packaging stays a part of the name, as on the Hub: `qwen3-embedding:0.6b`.
    """
    name = _PACKAGING.sub("", _without_owner(model or ""))
    return name.removeprefix("text-embedding-")  # of LM Studio


def _without_owner(model: str) -> str:
    name = model.rstrip("/").rsplit("/", 1)[-1].lower()
    name, _, tag = name.partition("@")[0].partition(":")  # transformers serve adds a revision after an @
    return name if tag in ("", "latest") else f"{name}-{tag}"


def _without_tag(model: str) -> str:
    return base_name(model.rsplit("/", 1)[-1].partition(":")[0])


_FORMS: Sequence[Callable[[str], str]] = (str, str.casefold, _without_owner, base_name, _without_tag)


def matching_names(wanted: str, names: Sequence[str]) -> list[str]:
    """Those of the names that fit the wanted one best: the same, or else without case, owner, packaging and tag."""
    for form in _FORMS:
        if found := [name for name in names if form(name) == form(wanted)]:
            return list(dict.fromkeys(found))
    return []


def listed_names(names: Sequence[str]) -> str:
    """The names in a message."""
    shown = [name[:_LONGEST] for name in names[:_LISTED]]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(shown) + more
