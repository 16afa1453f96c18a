"""A BERT encoder as an OpenVINO graph, built from the model's weights.

Source of the arithmetic: Devlin et al., BERT (2018), section 3, and Vaswani et al., Attention Is All You Need (2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hubgate.runtime.model.files import smaller_weights, unusable
from hubgate.runtime.model.graph import IDS, KINDS, MASK, Encoder, Node, number, ops, unsqueeze
from hubgate.runtime.model.heads import RankingHead
from hubgate.runtime.model.spec import BertShape, ModelSpec
from hubgate.runtime.model.weights import as_f32, read_weights


def build_bert(spec: ModelSpec, shape: BertShape, vocabulary: int) -> Encoder:
    """Build the encoder of a model whose tokenizer has `vocabulary` ids.

    Raises:
        RuntimeFailed: the weights do not match the configuration.
    """
    return _Bert(spec, shape, vocabulary).encoder()


def _current_name(name: str) -> str:
    """A tensor's name as `BertModel` has it now.

    `0.auto_model.` is before it in files that have a whole model of sentence-transformers, and `bert.` in those of
    models with a head.
    """
    name = name.removeprefix("0.auto_model.").removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


class _Bert:
    def __init__(self, spec: ModelSpec, shape: BertShape, vocabulary: int) -> None:
        self.spec = spec
        self.shape = shape
        self.vocabulary = vocabulary
        weights = read_weights(spec.weights)
        self.weights = {_current_name(name): tensor for name, tensor in weights.items()}

    def encoder(self) -> Encoder:
        if any(name.startswith(f"encoder.layer.{self.shape.layers}.") for name in self.weights):
            raise unusable(self.spec.folder, f"its weights have more than {self.shape.layers} layers")
        ids = ops.parameter([-1, -1], np.int32, name=IDS)
        mask = ops.parameter([-1, -1], np.float32, name=MASK)
        inputs = [ids, mask]
        ranks = isinstance(self.spec.head, RankingHead)
        if ranks:
            inputs.append(ops.parameter([-1, -1], np.int32, name=KINDS))
        for node in inputs:
            node.output(0).set_names({node.get_friendly_name()})
        hidden = self.embeddings(ids, inputs[2] if ranks else None)
        # Added to the attention scores: 0 for tokens, and a large negative number for padding.
        bias = ops.multiply(ops.subtract(unsqueeze(mask, 1, 2), number(1)), number(1e9))
        for layer in range(self.shape.layers):
            hidden = self.layer(f"encoder.layer.{layer}", hidden, bias)
        return Encoder(self.score(hidden) if ranks else hidden, inputs, mask)

    def embeddings(self, ids: Node, segments: Node | None) -> Node:
        words = self.tensor("embeddings.word_embeddings.weight", None, self.shape.hidden)
        places = self.tensor("embeddings.position_embeddings.weight", None, self.shape.hidden)
        kinds = self.tensor("embeddings.token_type_embeddings.weight", None, self.shape.hidden)
        if len(words) < self.vocabulary:
            raise smaller_weights(self.spec.folder, self.vocabulary, len(words))
        if len(places) < self.spec.max_tokens:
            raise unusable(
                self.spec.folder,
                f"its files let it read {self.spec.max_tokens} tokens, and its weights have {len(places)} positions",
            )
        tokens = ops.gather(ops.shape_of(ids), [1], 0)
        if segments is None:
            # All tokens are in the first segment, so its embedding is added to the positions.
            here = ops.slice(ops.constant(places + kinds[0]), [0], tokens, [1], [0])
        else:
            here = ops.slice(ops.constant(places), [0], tokens, [1], [0])
            here = ops.add(here, ops.gather(ops.constant(kinds), segments, 0))
        return self.norm("embeddings.LayerNorm", ops.add(ops.gather(ops.constant(words), ids, 0), here))

    def score(self, hidden: Node) -> Node:
        """The classifier on the first token's vector."""
        first = ops.gather(hidden, ops.constant(np.int32(0)), 1)
        pooled = ops.tanh(self.linear("pooler.dense", first, self.shape.hidden))
        return self.linear("classifier", pooled, 1)

    def layer(self, name: str, hidden: Node, bias: Node) -> Node:
        size, heads = self.shape.hidden, self.shape.heads
        width = size // heads
        query, key, value = (
            ops.transpose(
                ops.reshape(
                    self.linear(f"{name}.attention.self.{part}", hidden, size), [0, 0, heads, width], True
                ),
                [0, 2, 1, 3],
            )
            for part in ("query", "key", "value")
        )
        seen = ops.scaled_dot_product_attention(query, key, value, bias)
        seen = ops.reshape(ops.transpose(seen, [0, 2, 1, 3]), [0, 0, size], True)
        seen = self.linear(f"{name}.attention.output.dense", seen, size)
        hidden = self.norm(f"{name}.attention.output.LayerNorm", ops.add(seen, hidden))
        wide = ops.gelu(self.linear(f"{name}.intermediate.dense", hidden, None), "ERF")
        return self.norm(
            f"{name}.output.LayerNorm", ops.add(self.linear(f"{name}.output.dense", wide, size), hidden)
        )

    def linear(self, name: str, value: Node, size: int | None) -> Node:
        product = ops.matmul(value, ops.constant(self.tensor(f"{name}.weight", size, None)), False, True)
        return ops.add(product, ops.constant(self.tensor(f"{name}.bias", size)))

    def norm(self, name: str, value: Node) -> Node:
        centred = ops.mvn(value, [-1], True, self.shape.norm_epsilon, "inside_sqrt")
        scaled = ops.multiply(centred, ops.constant(self.tensor(f"{name}.weight", self.shape.hidden)))
        return ops.add(scaled, ops.constant(self.tensor(f"{name}.bias", self.shape.hidden)))

    def tensor(self, name: str, *shape: int | None) -> np.ndarray[Any, Any]:
        """A weight in f32; `None` in the shape is any size."""
        found = self.weights.get(name)
        if found is None:
            raise unusable(self.spec.folder, f"its weights have no {name} in F32, F16 or BF16")
        if len(found.shape) != len(shape) or any(
            want not in (None, have) for want, have in zip(shape, found.shape, strict=True)
        ):
            raise unusable(self.spec.folder, f"its weight {name} has the shape {list(found.shape)}")
        return as_f32(found)
