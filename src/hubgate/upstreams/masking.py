"""Taking a token out of a server's words, however the server spells it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

from hubgate.domain.secret import Secret

_SHORTEST_TOKEN = 6
"""Characters; a shorter token is a placeholder such as `x`, found in ordinary words."""
_SHORTEST_CODE = 8
"""Letters of base64; fewer are found in ordinary words."""


def without(token: Secret | None, text: str) -> str:
    """The text with `…` where it has the token: as it is, percent-encoded, escaped as in JSON, or in base64."""
    if token is None:
        return text
    secrets = (one.reveal() for one in token.each())
    spellings = [spelling for one in secrets if len(one) >= _SHORTEST_TOKEN for spelling in _spellings(one)]
    return re.sub("|".join(spellings), "…", text) if spellings else text


def _spellings(secret: str) -> Iterator[str]:
    """Patterns. Python keeps those that it has compiled."""
    yield "".join(map(_letter, secret))
    raw = secret.encode()
    for before in range(3):  # what stands in front shifts the code: a name, "Bearer "
        code = base64.b64encode(bytes(before) + raw).decode()
        code = code[
            -(-before * 8 // 6) : (before + len(raw)) * 8 // 6
        ]  # the letters that are the secret's alone
        if len(code) >= _SHORTEST_CODE:
            yield "".join(map(_letter_of_a_code, code))


def _letter(letter: str) -> str:
    """One letter, written in any of the ways. The bounds keep a text of nothing but signs from taking time."""
    percent = "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in letter.encode())
    coded = rf"{percent}|\\{{1,4}}u{ord(letter):04x}|\\{{1,4}}x{ord(letter):02x}"
    return rf"(?:\\{{0,4}}{re.escape(letter)}|(?i:{coded}))"


def _letter_of_a_code(letter: str) -> str:
    other = {"+": "-", "/": "_"}.get(letter)
    return f"(?:{_letter(letter)}|{_letter(other)})" if other else _letter(letter)
