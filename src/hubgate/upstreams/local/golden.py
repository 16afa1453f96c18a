"""Vectors that well-known models must give: whatever lies on the disk under their name is held against them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from hubgate.domain.errors import Cause, RuntimeFailed

GOLDEN_TEXT = "hello"
GOLDEN: Mapping[str, Sequence[float]] = {
    "sentence-transformers/all-MiniLM-L6-v2": (
        -0.06277,
        0.05496,
        0.05216,
        0.08579,
        -0.08275,
        -0.07457,
        0.06855,
        0.01840,
        -0.08201,
        -0.03738,
        0.01212,
        0.00352,
    ),
}
"""The first numbers of the vector that sentence-transformers gives this text, by the model's repository."""
_TOLERANCE = 0.005
"""Of each number: bf16 stays within 0.002 where f32 stays within 1e-6, and wrong weights or pooling miss it by 0.05."""


def check_golden(model: str | None, vector: bytes) -> None:
    """Hold the vector of the golden text against what the model of this repository is known to give.

    Raises:
        RuntimeFailed: it is another.
    """
    known = GOLDEN.get(model or "")
    if known is None:
        return
    found = array("f", vector[: 4 * len(known)])
    if any(abs(one - other) > _TOLERANCE for one, other in zip(known, found, strict=True)):
        raise RuntimeFailed(
            f"What runs as {model} is another model: it gives a known text another vector.",
            remedy="Its files are damaged or not its own: remove them from the download cache and register it again.",
            cause=Cause.MODEL_UNUSABLE,
        )
