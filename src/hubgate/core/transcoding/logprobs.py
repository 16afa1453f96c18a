"""Converting logprobs between OpenAI's completions and text-generation-inference."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, zip_longest

import msgspec


class Token(msgspec.Struct):
    """A token of TGI."""

    id: int = 0
    text: str = ""
    logprob: float | None = 0.0
    special: bool = False


class Logprobs(msgspec.Struct):
    """OpenAI's `logprobs` of a completion. Those of a chat have other fields, which are not read."""

    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None
    """The most likely tokens at each position."""
    text_offset: list[int] | None = None
    """How many characters of the text precede each token."""

    @property
    def total(self) -> float:
        """The sum over all tokens."""
        return sum((number or 0.0 for number in self.token_logprobs or ()), 0.0)

    def as_tokens(self) -> list[Token]:
        pairs = zip(self.tokens or (), self.token_logprobs or (), strict=False)
        return [Token(text=text, logprob=number or 0.0) for text, number in pairs]

    def as_top_tokens(self) -> list[list[Token]] | msgspec.UnsetType:
        if not any(self.top_logprobs or ()):
            return msgspec.UNSET
        return [
            [Token(text=text, logprob=number or 0.0) for text, number in (top or {}).items()]
            for top in self.top_logprobs or ()
        ]


class _Details(msgspec.Struct):
    tokens: list[Token] = []
    top_tokens: list[list[Token]] = []


class ReadTokens(msgspec.Struct):
    """The fields that are read from the tokens of TGI's whole text or event."""

    token: Token | None = None
    top_tokens: list[Token] = []
    details: _Details | None = None

    def logprobs(self, offset: int) -> Logprobs | None:
        """OpenAI's logprobs, if there are any. `offset` characters precede the first token."""
        if self.token is not None:
            return _as_openai([(self.token, self.top_tokens)], offset)
        details = self.details or _Details()
        return _as_openai(zip_longest(details.tokens, details.top_tokens[: len(details.tokens)]), offset)


def _as_openai(tokens: Iterable[tuple[Token, list[Token] | None]], offset: int) -> Logprobs | None:
    shown = [(token, top or []) for token, top in tokens if not token.special]
    if not shown:
        return None
    tops: list[dict[str, float | None] | None] = [
        {one.text: one.logprob for one in (token, *top)} for token, top in shown
    ]
    return Logprobs(
        tokens=[token.text for token, _ in shown],
        token_logprobs=[token.logprob for token, _ in shown],
        top_logprobs=tops if any(top for _, top in shown) else None,
        text_offset=list(accumulate((len(token.text) for token, _ in shown[:-1]), initial=offset)),
    )


TOKENS = msgspec.json.Decoder(ReadTokens)
