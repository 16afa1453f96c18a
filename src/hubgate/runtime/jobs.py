"""One call on its way through the worker: the rows of its texts, and room for their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hubgate.domain.errors import InvalidRequest
from hubgate.runtime.frames import Embedded, EmbedTexts, Ranked, RankTexts
from hubgate.runtime.heads import Embedding, Ranking
from hubgate.runtime.selftest import sigmoid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.runtime.folder import Recipe
    from hubgate.runtime.tokens import Row, Tokens

    Array = np.ndarray[Any, Any]


class Job(Protocol):
    """A call that the model runs, in as many batches as it takes."""

    rows: list[Row]
    left: int
    """How many texts wait for their answer."""

    def take(self, index: int, outputs: Sequence[Array]) -> None:
        """Note the answer to one text: its part of each of the graph's outputs."""
        ...

    def reply(self) -> Embedded | Ranked:
        """The finished call."""
        ...


class EmbedJob:
    """Texts to vectors.

    Raises:
        InvalidRequest: a text is too long, there is no such prompt, or the model gives no vectors.
    """

    def __init__(self, request: EmbedTexts, recipe: Recipe, tokens: Tokens) -> None:
        if not isinstance(recipe.head, Embedding):
            raise InvalidRequest(
                "The model ranks texts, it gives no vectors.", remedy="Ask it to rerank, or another model."
            )
        texts = prompted(request, recipe)
        self.rows, self._truncated = tokens.rows(texts, truncate=request.truncate, left=request.truncate_left)
        self._call = request.call
        self._output = int(recipe.head.normalize if request.normalize is None else request.normalize)
        self._vectors = np.empty((len(self.rows), recipe.width), "<f4")
        self.left = len(self.rows)

    def take(self, index: int, outputs: Sequence[Array]) -> None:
        """Note a vector."""
        self._vectors[index] = outputs[self._output]
        self.left -= 1

    def reply(self) -> Embedded:
        """All vectors."""
        lengths = [len(row.ids) for row in self.rows]
        return Embedded(self._call, self._vectors.tobytes(), lengths, self._truncated)


class RankJob:
    """A query and texts to scores.

    Raises:
        InvalidRequest: a text is too long, or the model gives no scores.
    """

    def __init__(self, request: RankTexts, recipe: Recipe, tokens: Tokens) -> None:
        if not isinstance(recipe.head, Ranking):
            raise InvalidRequest(
                "The model gives vectors, it ranks no texts.", remedy="Ask it to embed, or a cross-encoder."
            )
        self.rows, self._truncated = tokens.pairs(request.query, request.texts, truncate=request.truncate)
        self._call = request.call
        self._squeezed = recipe.head.sigmoid if request.raw is None else not request.raw
        self._scores = np.empty(len(self.rows))
        self.left = len(self.rows)

    def take(self, index: int, outputs: Sequence[Array]) -> None:
        """Note a score."""
        self._scores[index] = outputs[0][0]
        self.left -= 1

    def reply(self) -> Ranked:
        """All scores."""
        scores = sigmoid(self._scores) if self._squeezed else self._scores
        lengths = [len(row.ids) for row in self.rows]
        return Ranked(self._call, scores.tolist(), lengths, self._truncated)


def prompted(request: EmbedTexts, recipe: Recipe) -> Sequence[str]:
    """The texts behind the prompt that is asked for; the model's default one only where none stands yet."""
    prompts, default = recipe.prompts, recipe.default_prompt
    if request.prompt_name is None:
        borne = tuple(filter(None, prompts.values()))
        prompt = prompts.get(default, "") if default else ""
        if not prompt:
            return request.texts
        return [text if text.startswith(borne) else prompt + text for text in request.texts]
    if request.prompt_name not in prompts:
        raise InvalidRequest(
            f"The model has no prompt named [{request.prompt_name}].",
            remedy=f"Its prompts: {', '.join(sorted(prompts)) or 'none'}.",
        )
    return [prompts[request.prompt_name] + text for text in request.texts]
