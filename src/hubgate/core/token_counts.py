"""Exact token counts where a model's server does not return them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from hubgate.domain.calls import Call, Embed, Result, Vectors
from hubgate.domain.ports import Counter, Handler

_SPECIAL_TOKENS = 8
"""More than any model adds to a text."""


class TokenCountStep:
    """A pipeline step that counts tokens if the server's counts are not exact.

    It must be below the steps that change texts. A call with a prompt name for the server is not counted, because only
    the server knows that prompt.

    Args:
        handler: returns vectors of the texts, each truncated at the limit.
        counter: of the model's tokens.
        limit: how many of them the model reads, special ones included; `None` if unknown.
        may_truncate: whether the server may truncate a text that is too long, instead of rejecting it.
    """

    def __init__(
        self, handler: Handler, counter: Counter, *, limit: int | None, may_truncate: bool = True
    ) -> None:
        self._handler = handler
        self._counter = counter
        self._limit = limit
        self._may_truncate = may_truncate

    async def __call__(self, call: Call) -> Result:
        result = await self._handler(call)
        if not isinstance(call, Embed) or not isinstance(result, Vectors):
            return result
        if call.prompt_name is not None:
            return result
        if result.exact:
            return await self._with_truncation(call.texts, result)
        lengths = await self._counter(call.texts, self._limit)
        return result if lengths is None else self._with_counts(result, lengths)

    async def _with_truncation(self, texts: Sequence[str], vectors: Vectors) -> Vectors:
        """Add how many texts were truncated, if the server may truncate and does not report it.

        Only texts that may be too long are counted: no token is shorter than a character.
        """
        limit = self._limit
        if limit is None or vectors.truncated is not None or not self._may_truncate:
            return vectors
        long = [index for index, text in enumerate(texts) if len(text) > limit - _SPECIAL_TOKENS]
        truncated = [False] * len(texts)
        if long and (vectors.tokens or 0) >= limit:
            lengths = await self._counter([texts[index] for index in long], limit)
            if lengths is None:
                return vectors
            for index, length in zip(long, lengths, strict=True):
                truncated[index] = length > limit
        return replace(vectors, text_truncated=truncated, truncated=sum(truncated))

    def _with_counts(self, vectors: Vectors, lengths: Sequence[int]) -> Vectors:
        if self._limit is None:
            return replace(vectors, text_tokens=lengths, tokens=sum(lengths), exact=True)
        limit = self._limit
        tokens = [min(length, limit) for length in lengths]
        counted = replace(vectors, text_tokens=tokens, tokens=sum(tokens), exact=True)
        if vectors.truncated is not None:
            return counted
        # There are vectors, so texts that are too long were not rejected.
        truncated = [length > limit for length in lengths]
        return replace(counted, text_truncated=truncated, truncated=sum(truncated))
