"""Exact numbers of tokens, where a model's server does not give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hubgate.domain.calls import Call, Embed, Result, Vectors
from hubgate.domain.ports import Counter, Handler

_SPECIAL_TOKENS = 8
"""More than any model puts around a text."""


class TokenCountStep:
    """Counts the tokens of what an answer did not count exactly; an exact result costs nothing.

    It must stand below what changes the texts, as the model is taken to read them as they are. A call with a prompt
    name for the server is left alone, since the server alone knows that prompt.

    Args:
        answer: whose vectors are of the texts, each cut at the limit.
        counter: of the model's tokens.
        limit: how many of them the model reads, special ones included; `None` if it is not known.
        may_cut: whether the server may cut a text that is too long, instead of refusing it.
    """

    def __init__(self, answer: Handler, counter: Counter, *, limit: int | None, may_cut: bool = True) -> None:
        self._answer = answer
        self._counter = counter
        self._limit = limit
        self._may_cut = may_cut

    async def __call__(self, call: Call) -> Result:
        """Answer one call."""
        result = await self._answer(call)
        if not isinstance(call, Embed) or not isinstance(result, Vectors):
            return result
        if call.prompt_name is not None:
            return result
        if result.exact:
            return await self._with_cuts(call.texts, result)
        lengths = await self._counter(call.texts, self._limit)
        return result if lengths is None else self._told(result, lengths)

    async def _with_cuts(self, texts: Sequence[str], vectors: Vectors) -> Vectors:
        """Vectors whose tokens are exact, with how many texts were cut, where the server may cut and does not tell.

        Only texts that can be too long are counted: in none of them a token has less than a character.
        """
        limit = self._limit
        if limit is None or vectors.truncated is not None or not self._may_cut:
            return vectors
        long = [index for index, text in enumerate(texts) if len(text) > limit - _SPECIAL_TOKENS]
        cut = [False] * len(texts)
        if long and (vectors.tokens or 0) >= limit:
            lengths = await self._counter([texts[index] for index in long], limit)
            if lengths is None:
                return vectors
            for index, length in zip(long, lengths, strict=True):
                cut[index] = length > limit
        return replace(vectors, text_truncated=cut, truncated=sum(cut))

    def _told(self, vectors: Vectors, lengths: Sequence[int]) -> Vectors:
        if self._limit is None:
            return replace(vectors, text_tokens=lengths, tokens=sum(lengths), exact=True)
        limit = self._limit
        tokens = [min(length, limit) for length in lengths]
        counted = replace(vectors, text_tokens=tokens, tokens=sum(tokens), exact=True)
        if vectors.truncated is not None:
            return counted
        # There are vectors, so what was too long was not refused.
        cut = [length > limit for length in lengths]
        return replace(counted, text_truncated=cut, truncated=sum(cut))
