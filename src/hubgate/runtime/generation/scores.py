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
    scores: Array,
    ids: Sequence[int],
    plan: Plan,
    spec: Text2TextSpec,
    ends: Sequence[int],
    *,
    prompt: Sequence[int],
) -> Array:
    """The scores of one text's next token; changed in place. The order of the rules is that of transformers.

    Args:
        scores: logits or, in beam search, log probabilities: transformers applies the rules to these.
        ids: of the text so far, with the token that starts it.
        plan: of the call.
        spec: the rules of the model.
        ends: the tokens that end the text.
        prompt: the tokens that the encoder read.
    """
    generated = np.array(ids[1:], np.int64)
    if len(ids) and plan.repetition_penalty != 1:
        known = np.unique(np.array(ids, np.int64))
        scores[known] *= np.where(scores[known] < 0, plan.repetition_penalty, 1 / plan.repetition_penalty)
    if len(generated) and (plan.presence_penalty or plan.frequency_penalty):
        known, counts = np.unique(generated, return_counts=True)
        scores[known] -= plan.presence_penalty + plan.frequency_penalty * counts
    scores[_forbidden(ids, spec, prompt)] = -np.inf
    if len(ids) < spec.min_length:
        scores[list(ends)] = -np.inf
    if spec.forced_start is not None and len(ids) == 1:
        scores = _only(scores, spec.forced_start)
    if spec.forced_end is not None and len(ids) == plan.max_new_tokens:
        scores = _only(scores, spec.forced_end)
    scores[list(spec.suppressed)] = -np.inf
    if len(ids) == (1 if spec.forced_start is None else 2):
        scores[list(spec.suppressed_first)] = -np.inf
    return log_softmax(scores) if spec.renormalize else scores


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


def _forbidden(ids: Sequence[int], spec: Text2TextSpec, prompt: Sequence[int]) -> list[int]:
    """The tokens that would complete a sequence that may not be in the text."""
    found = [word[-1] for word in spec.bad_words if tuple(ids[len(ids) - len(word) + 1 :]) == word[:-1]]
    if spec.no_repeat_ngram:
        found += _repeating(ids, ids, spec.no_repeat_ngram)
    if spec.encoder_no_repeat_ngram:
        found += _repeating(prompt, ids, spec.encoder_no_repeat_ngram)
    return found


def _repeating(source: Sequence[int], ids: Sequence[int], size: int) -> list[int]:
    """The tokens that would complete a sequence of `size` tokens that the source has."""
    before = tuple(ids[len(ids) - size + 1 :]) if size > 1 else ()
    return [
        source[place + size - 1]
        for place in range(len(source) - size + 1)
        if tuple(source[place : place + size - 1]) == before
    ]
