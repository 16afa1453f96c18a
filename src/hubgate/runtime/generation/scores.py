"""The scores of the next token of encoder-decoder models, changed by the rules of the model and the options of the call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hubgate.runtime.generation.sampling import Plan
from hubgate.runtime.generation.spec import Text2TextSpec

Array = np.ndarray[Any, Any]


def log_softmax(logits: Array) -> Array:
    """Log probabilities, in f64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def apply_rules(
    scores: Array, ids: Sequence[int], plan: Plan, spec: Text2TextSpec, ends: Sequence[int]
) -> Array:
    """The scores of one text's next token; changed in place.

    Args:
        scores: logits or, in beam search, log probabilities: transformers applies the rules to these.
        ids: of the text so far, with the token that starts it.
        plan: of the call.
        spec: the rules of the model.
        ends: the tokens that end the text.
    """
    generated = np.array(ids[1:], np.int64)
    if len(ids) and plan.repetition_penalty != 1:
        known = np.unique(np.array(ids, np.int64))
        scores[known] *= np.where(scores[known] < 0, plan.repetition_penalty, 1 / plan.repetition_penalty)
    if len(generated) and (plan.presence_penalty or plan.frequency_penalty):
        known, counts = np.unique(generated, return_counts=True)
        scores[known] -= plan.presence_penalty + plan.frequency_penalty * counts
    if spec.no_repeat_ngram:
        scores[_repeating(ids, spec.no_repeat_ngram)] = -np.inf
    if len(ids) < spec.min_length:
        scores[list(ends)] = -np.inf
    if spec.forced_start is not None and len(ids) == 1:
        scores = _only(scores, spec.forced_start)
    if spec.forced_end is not None and len(ids) == plan.max_new_tokens:
        scores = _only(scores, spec.forced_end)
    return scores


def choose(scores: Array, plan: Plan, rng: np.random.Generator) -> int:
    """The most likely token, or one that is drawn at random."""
    if not plan.sample:
        return int(scores.argmax())
    scores = scores / plan.temperature
    if plan.top_k and plan.top_k < len(scores):
        scores[scores < np.partition(scores, -plan.top_k)[-plan.top_k]] = -np.inf
    chances = np.exp(log_softmax(scores))
    if plan.top_p < 1:
        order = np.argsort(-chances, kind="stable")
        before = np.cumsum(chances[order]) - chances[order]
        chances[order[before >= plan.top_p]] = 0
    chances[chances < plan.min_p * chances.max()] = 0
    return int(rng.choice(len(chances), p=chances / chances.sum()))


def _only(scores: Array, token: int) -> Array:
    forced = np.full_like(scores, -np.inf)
    forced[token] = 0
    return forced


def _repeating(ids: Sequence[int], size: int) -> list[int]:
    """The tokens that would complete a sequence of `size` tokens that the text already has."""
    before = tuple(ids[len(ids) - size + 1 :]) if size > 1 else ()
    return [
        ids[place + size - 1]
        for place in range(len(ids) - size + 1)
        if tuple(ids[place : place + size - 1]) == before
    ]
