"""The score of a language model that reranks: from the logits of one or two tokens at the end of its prompt.

A prompt is padded on the right, which causal attention does not see, so the end is the last token of the mask. The
logits of all other positions and tokens are not computed: they would take more memory than the model.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from hubgate.core.rerank_templates import RerankTemplate
from hubgate.runtime.model.files import TOKENIZER, unusable
from hubgate.runtime.model.graph import Encoder, Node, number, ops

_AFTER_VOCABULARY = frozenset({"Convert", "Divide", "Multiply", "Tanh"})
"""What a graph may do to its logits: cast them, or cap them."""


class Vocabulary(Protocol):
    """Of a model's tokenizer."""

    def id_of(self, token: str) -> int | None: ...


def with_score(encoder: Encoder, template: RerankTemplate, tokens: Vocabulary, folder: Path) -> Encoder:
    """The graph with the raw score `[texts, 1]` as its output, instead of the logits `[texts, tokens, vocabulary]`.

    Raises:
        RuntimeFailed: the tokenizer does not have the tokens.
    """
    ids = [_id(word, tokens, folder) for word in (template.yes, template.no) if word is not None]
    last = ops.subtract(ops.reduce_sum(encoder.mask, [1], keep_dims=True), number(1))
    last = ops.convert(ops.maximum(last, number(0)), np.int64)
    logits = _at(encoder.output, last)
    chosen = ops.gather(logits, ops.constant(np.array(ids, np.int64)), 2)
    scores = [ops.gather(chosen, ops.constant(np.int64(place)), 2) for place in range(len(ids))]
    score = scores[0] if len(scores) == 1 else ops.subtract(*scores)
    return replace(encoder, output=ops.multiply(ops.convert(score, np.float32), number(template.scale)))


def _at(logits: Node, last: Node) -> Node:
    """The logits at these positions, `[texts, 1, vocabulary]`."""
    node = logits.get_node()
    while node.get_type_name() in _AFTER_VOCABULARY:
        node = node.input_value(0).get_node()
    if node.get_type_name() != "MatMul":
        return ops.gather(logits, last, 1, 1)
    hidden = node.input_value(0)
    node.input(0).replace_source_output(ops.gather(hidden, last, 1, 1).output(0))
    return logits


def _id(word: str | int, tokens: Vocabulary, folder: Path) -> int:
    found = word if isinstance(word, int) else tokens.id_of(word)
    if found is None:
        raise unusable(folder, f"{TOKENIZER} has no token {word!r}, from which this model's score comes")
    return found
