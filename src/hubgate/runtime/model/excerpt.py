"""The part of a long text that determines which tokens a model reads.

A model reads a few hundred tokens, and tokenizing megabytes takes seconds and a hundred times their memory. So only the
beginning of a long text is tokenized (or the end, if the beginning is truncated), if the rest cannot change the tokens
that are read. That is so

- if two further words follow, and `_MARGIN` characters: a tokenizer goes word by word, whatever it takes for a word, and
  neither normalisers nor pre-tokenizers nor added tokens look further ahead;
- within a word, of a text without spaces for example, if the tokens are the same for each of `_ENDS` ends in a row: no
  token is longer, so every way to go on passes through one of these ends.

At the end of a text both must hold: only the start of a word says how the word is cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from unicodedata import category

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

CHARACTERS_PER_TOKEN = 32
"""A text with fewer characters for each token that is read is tokenized whole."""
_MAX_CHARACTERS = 1 << 18
_FIRST_GUESS = 8
"""Characters for each token in the first attempt; each further attempt takes four times as many."""
_MARGIN = 128
"""Longer than an added token, and than the 100 letters beyond which WordPiece takes a word for unknown."""
_ENDS = 32


class ExcerptUndecided(Exception):
    """The tokens that the model reads may depend on more of the text than may be tokenized."""


def max_characters(max_tokens: int) -> int:
    """How many characters of a text may be tokenized for a model that reads `max_tokens`: at most about 0.3 seconds of work."""
    return max(_MAX_CHARACTERS, CHARACTERS_PER_TOKEN * max_tokens)


def excerpt(tokenizer: Tokenizer, text: str, need: int, most: int, *, left: bool = False) -> str:
    """A part of the text whose first `need` tokens are those of the whole text; the text itself if it is not long.

    Args:
        tokenizer: one that neither cuts nor pads.
        text: any text.
        need: how many tokens, special ones not included.
        most: how many characters may be tokenized at once.
        left: whether the last tokens are wanted instead of the first.

    Raises:
        NotSettled: the text is long, and no part of it will do.
    """
    if len(text) <= min(CHARACTERS_PER_TOKEN * need, most):
        return text
    size = _FIRST_GUESS * need
    while size < min(len(text), most):
        part = text[-size:] if left else text[:size]
        settled = (_settled_end if left else _settled_start)(tokenizer, part, need)
        if settled:
            return part
        if settled is not None:
            break  # a longer part of such a text would be as doubtful
        size *= 4
    if len(text) > most:
        raise ExcerptUndecided
    return text


def _settled_start(tokenizer: Tokenizer, part: str, need: int) -> bool | None:
    """Whether the rest of a text cannot change the first tokens of this part; `None` if it is too short to say."""
    encoding = _encode(tokenizer, [part])[0]
    if len(encoding.ids) < need:
        return None
    stop = encoding.offsets[need - 1][1]
    margin = _margin(part[stop:])
    if margin is None:
        return None
    if _has_words_between(encoding, need - 1, -1):
        return True
    ends = [part[: stop + margin + more] for more in range(_ENDS)]
    return all(other.ids[:need] == encoding.ids[:need] for other in _encode(tokenizer, ends))


def _settled_end(tokenizer: Tokenizer, part: str, need: int) -> bool | None:
    """Whether what stands before this part cannot change its last tokens; `None` if it is too short to say."""
    encoding = _encode(tokenizer, [part])[0]
    if len(encoding.ids) < need:
        return None
    start = encoding.offsets[-need][0]
    margin = _margin(part[:start][::-1])
    if margin is None:
        return None
    if not _has_words_between(encoding, 0, -need):
        return False
    ends = [part[start - margin - more :] for more in range(_ENDS)]
    return all(other.ids[-need:] == encoding.ids[-need:] for other in _encode(tokenizer, ends))


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[Encoding]:
    """Not `encode_batch_fast`, which does not return the offsets of tokens."""
    return tokenizer.encode_batch(texts, add_special_tokens=False)


def _margin(beyond: str) -> int | None:
    """How many characters hold `_MARGIN` that no normaliser drops or reorders; `None` if not even the ends are left."""
    seen = 0
    for index, character in enumerate(beyond[:-_ENDS], 1):
        seen += category(character)[0] not in "MC"  # marks, and invisible ones
        if seen == _MARGIN:
            return index
    return None


def _has_words_between(encoding: Encoding, one: int, other: int) -> bool:
    """Whether there is a whole word between those of two tokens."""
    first, last = encoding.word_ids[one], encoding.word_ids[other]
    return first is not None and last is not None and first + 2 <= last
