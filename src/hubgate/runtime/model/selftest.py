"""The self-test of a loaded model: whether bf16 or int8 is accurate enough, and whether padding changes its outputs.

It runs a few texts of different lengths and takes a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import Cause, RuntimeFailed
from hubgate.runtime.model.files import unusable
from hubgate.runtime.model.heads import RankingHead
from hubgate.runtime.model.spec import ModelSpec
from hubgate.runtime.model.tokenizer import ModelInput, ModelTokenizer

Array = np.ndarray[Any, Any]

SAME_VECTOR = 0.9995
"""The minimum cosine of two vectors of one text that are equal for any search."""
SAME_SCORE = 0.01
"""The maximum difference of two scores of one text, between 0 and 1, that are equal for any ranking."""
INT8_COSINE = 0.999
"""The minimum cosine of a vector of int8 to that of f32. Below it, registration takes two models for different ones."""
TEXTS = (
    "harbour",
    "When does the ferry leave?",
    "The gate keeps every token sealed, and opens it for one call only.",
    (
        "Boats come in with the first light, and the gulls know every one of them. On the quay the ice is weighed, the "
        "nets are counted and the prices are called out, until the market bell ends it and the town has its breakfast."
    ),
    "3.14159, $5.00, C++ and e-mail@example.org: the test of a tokenizer.",
    "کشتی‌ها با نخستین روشنایی می‌آیند، و مرغان دریایی همه را می‌شناسند. 渔民在码头上修补渔网。",
)


class Runner(Protocol):
    """Runs a batch: see `compiled.Lane`."""

    def run(self, rows: Sequence[ModelInput]) -> list[Array]: ...


_Runner = TypeVar("_Runner", bound=Runner)


class Chosen(NamedTuple, Generic[_Runner]):
    """A loaded model and its precision."""

    precision: Precision
    lanes: list[_Runner]
    self_test: float | None = None
    """As in `domain.endpoint.Facts.precision_self_test`."""


def encode_samples(tokens: ModelTokenizer, spec: ModelSpec) -> list[ModelInput]:
    """The sample texts as model inputs."""
    if isinstance(spec.head, RankingHead) and spec.head.template:
        return tokens.prompts(spec.head.template, TEXTS[1], TEXTS, truncate=True)[0]
    if isinstance(spec.head, RankingHead):
        return tokens.pairs(tokens.query(TEXTS[1]), TEXTS, truncate=True)[0]
    return tokens.rows(TEXTS, truncate=True, left=False)[0]


def choose_precision(
    asked: Precision,
    load: Callable[[Precision], list[_Runner]],
    spec: ModelSpec,
    known: Sequence[ModelInput],
    *,
    has_bf16: bool,
) -> Chosen[_Runner]:
    """Choose the precision, and load the model with it.

    `auto` is bf16 if the CPU has it and the outputs for the sample texts stay the same.

    Raises:
        RuntimeFailed: bf16 was requested and the CPU does not have it, or int8 and it changes the outputs too much.
    """
    need_bf16(asked, has_bf16=has_bf16)
    if asked is Precision.INT8:
        reference = _alone(load(Precision.F32)[0], known)
        small = load(Precision.INT8)
        return Chosen(asked, small, _check_int8(spec, reference, _alone(small[0], known)))
    if asked is not Precision.AUTO:
        return Chosen(asked, load(asked))
    exact = load(Precision.F32)
    if not has_bf16:
        return Chosen(Precision.F32, exact)
    fast = load(Precision.BF16)
    if same_outputs(spec, _alone(exact[0], known), _alone(fast[0], known)):
        return Chosen(Precision.BF16, fast)
    return Chosen(Precision.F32, exact)


def need_bf16(asked: Precision, *, has_bf16: bool) -> None:
    """Check that the processor supports a precision.

    Raises:
        RuntimeFailed: bf16 was requested and the CPU does not have it.
    """
    if asked is Precision.BF16 and not has_bf16:
        raise RuntimeFailed(
            "The precision is bf16, and this machine's processor does not support it.",
            remedy="Register the endpoint with the precision auto or f32.",
        )


def find_fault(model: Runner, spec: ModelSpec, known: Sequence[ModelInput]) -> RuntimeFailed | None:
    """Why the model cannot be used: its outputs are not finite, or depend on the other texts in a batch."""
    together = model.run(known)[0]
    if not np.isfinite(together).all():
        return unusable(spec.folder, "it returns values that are not finite (NaN or infinite)")
    if not same_outputs(spec, _alone(model, known), together):
        return unusable(spec.folder, "its outputs change with the padding, as if it had no attention mask")
    return None


def same_outputs(spec: ModelSpec, one: Array, other: Array) -> bool:
    """Whether two outputs for the same texts are equal for any search or ranking."""
    if isinstance(spec.head, RankingHead):
        return _largest_difference(one, other) <= SAME_SCORE
    return _lowest_cosine(one, other) >= SAME_VECTOR


def _check_int8(spec: ModelSpec, exact: Array, small: Array) -> float:
    """How close the outputs of int8 are to those of f32: see `Chosen.self_test`.

    Raises:
        RuntimeFailed: not close enough. f32 instead would be vectors that nobody asked for.
    """
    if isinstance(spec.head, RankingHead):
        found = _largest_difference(exact, small)
        passed, what = found <= SAME_SCORE, f"its scores differ from those of f32 by up to {found:.4f}"
        limit = f"at most {SAME_SCORE}"
    else:
        found = _lowest_cosine(exact, small)
        passed, what = found >= INT8_COSINE, f"the cosine of its vectors to those of f32 is {found:.4f}"
        limit = f"at least {INT8_COSINE}"
    if passed:
        return round(found, 5)
    raise RuntimeFailed(
        f"The model fails the self-test of the precision int8: {what}, and {limit} is required.",
        remedy="Register the endpoint with the precision f32.",
        cause=Cause.MODEL_UNUSABLE,
    )


def _largest_difference(one: Array, other: Array) -> float:
    return float(np.abs(sigmoid(one) - sigmoid(other)).max())


def _lowest_cosine(one: Array, other: Array) -> float:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / np.maximum(lengths, 1e-30)).min())


def sigmoid(scores: Array) -> Array:
    """Scores between 0 and 1, in f64."""
    return np.asarray(1 / (1 + np.exp(-np.asarray(scores, np.float64))))


def _alone(model: Runner, known: Sequence[ModelInput]) -> Array:
    return np.concatenate([model.run([row])[0] for row in known])
