"""Finds an excerpt of a long text that is enough to compute the tokens that a model reads.

A model reads a few hundred tokens, but tokenizing megabytes takes seconds and a hundred times their size in memory. So
only the beginning of a long text is tokenized, or its end if the beginning is truncated. This is safe if the rest of
the text cannot change the tokens that are read: if the excerpt is stable. A beginning is stable in two cases:

- At least two words and `_MARGIN` characters follow the last token that is read. Tokenizers work word by word, and
  normalizers, pre-tokenizers and added tokens look no further ahead.
- Fewer words follow, as in a text without spaces, but the tokens stay the same at each of `_CUTS` consecutive cuts. No
  token is longer than `_CUTS` characters, so one of the cuts is the end of a token, however the text continues.

An end is stable only if both conditions hold, because the start of a word determines how the word is split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from unicodedata import category

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

CHARACTERS_PER_TOKEN = 32
"""A text with at most this many characters for each token that is read is tokenized whole."""
_MAX_CHARACTERS = 1 << 18
_FIRST_GUESS = 8
"""Characters per token in the first attempt; each further attempt takes four times as many."""
_MARGIN = 128
"""Characters. Longer than any added token, and than the 100 letters after which WordPiece treats a word as unknown."""
_CUTS = 32


class ExcerptUndecided(Exception):
    """The tokens that the model reads may depend on a part of the text beyond the limit."""


def max_characters(max_tokens: int) -> int:
    """The limit of characters to tokenize at once, for a model that reads `max_tokens`. They take about 0.3 seconds."""
    return max(_MAX_CHARACTERS, CHARACTERS_PER_TOKEN * max_tokens)


def excerpt(tokenizer: Tokenizer, text: str, need: int, most: int, *, left: bool = False) -> str:
    """A part of the text with the same first `need` tokens as the whole text; the whole text if it is short.

    Args:
        tokenizer: one that neither truncates nor pads.
        text: any text.
        need: the number of tokens that are read, without special tokens.
        most: the maximum number of characters to tokenize at once.
        left: whether the last tokens are read instead of the first.

    Raises:
        ExcerptUndecided: the text is longer than `most`, and no excerpt of it is stable.
    """
    if len(text) <= min(CHARACTERS_PER_TOKEN * need, most):
        return text
    size = _FIRST_GUESS * need
    while size < min(len(text), most):
        part = text[-size:] if left else text[:size]
        is_stable = (_is_stable_end if left else _is_stable_start)(tokenizer, part, need)
        if is_stable:
            return part
        if is_stable is not None:
            break  # a longer part of such a text would not be stable either
        size *= 4
    if len(text) > most:
        raise ExcerptUndecided
    return text


def _is_stable_start(tokenizer: Tokenizer, part: str, need: int) -> bool | None:
    """Whether no text after this part can change its first tokens; `None` if the part is too short to decide."""
    encoding = _encode(tokenizer, [part])[0]
    if len(encoding.ids) < need:
        return None
    stop = encoding.offsets[need - 1][1]
    margin = _margin(part[stop:])
    if margin is None:
        return None
    if _has_words_between(encoding, need - 1, -1):
        return True
    cuts = [part[: stop + margin + more] for more in range(_CUTS)]
    return all(other.ids[:need] == encoding.ids[:need] for other in _encode(tokenizer, cuts))


def _is_stable_end(tokenizer: Tokenizer, part: str, need: int) -> bool | None:
    """Whether no text before this part can change its last tokens; `None` if the part is too short to decide."""
    encoding = _encode(tokenizer, [part])[0]
    if len(encoding.ids) < need:
        return None
    start = encoding.offsets[-need][0]
    margin = _margin(part[:start][::-1])
    if margin is None:
        return None
    if not _has_words_between(encoding, 0, -need):
        return False
    cuts = [part[start - margin - more :] for more in range(_CUTS)]
    return all(other.ids[-need:] == encoding.ids[-need:] for other in _encode(tokenizer, cuts))


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[Encoding]:
    # Not `encode_batch_fast`, which does not return the offsets of tokens.
    return tokenizer.encode_batch(texts, add_special_tokens=False)


def _margin(beyond: str) -> int | None:
    """The length of the shortest prefix with `_MARGIN` characters that no normalizer drops or reorders.

    `None` if there is none, or fewer than `_CUTS` characters follow it.
    """
    seen = 0
    for index, character in enumerate(beyond[:-_CUTS], 1):
        seen += category(character)[0] not in "MC"  # combining marks, and control and format characters
        if seen == _MARGIN:
            return index
    return None


def _has_words_between(encoding: Encoding, one: int, other: int) -> bool:
    """Whether there is a whole word between the words of two tokens."""
    first, last = encoding.word_ids[one], encoding.word_ids[other]
    return first is not None and last is not None and first + 2 <= last
