r"""Regular expressions in Java's syntax, read for Python's `regex` module.

Both engines backtrack and agree on groups, look-around, back references, possessive and lazy repeats and nested sets.
Their differences are translated: `\d \w \s \b` are ASCII in Java, `. ^ $` recognize six line ends, and some escapes have
other names. What cannot be translated is rejected, never interpreted differently. Two differences remain: `(?i)` also
folds letters beyond ASCII, and a match never starts inside a surrogate pair.

Unbounded repeats end at `UNBOUNDED`: the engine checks its time limit between repeats, not within one.
"""

from __future__ import annotations

import math
import re
import sys

import regex

UNBOUNDED = 100_000
MAX_COUNT = 10_000
"""The product of all counts in braces: the engine expands nested counts in memory."""

_LINE_END = r"\n\r\x85\u2028\u2029"
_SETS = {
    "d": "0-9",
    "w": "a-zA-Z0-9_",
    "s": r" \t\n\x0b\f\r",
    "h": r" \t\xa0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000",
    "v": r"\n\x0b\f\r\x85\u2028\u2029",
}
_POSIX = {
    "Lower": "a-z",
    "Upper": "A-Z",
    "ASCII": r"\x00-\x7f",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Alnum": "a-zA-Z0-9",
    "Punct": r"!-/:-@\[-`{-~",
    "Graph": "!-~",
    "Print": " -~",
    "Blank": r" \t",
    "Cntrl": r"\x00-\x1f\x7f",
    "XDigit": "0-9a-fA-F",
    "Space": _SETS["s"],
}
_CONTROLS = {"t": r"\t", "n": r"\n", "r": r"\r", "f": r"\f", "a": r"\x07", "e": r"\x1b"}
_WORD = f"[{_SETS['w']}]"
_ANCHORS = {
    "b": f"(?:(?<={_WORD})(?!{_WORD})|(?<!{_WORD})(?={_WORD}))",
    "B": f"(?:(?<={_WORD})(?={_WORD})|(?<!{_WORD})(?!{_WORD}))",
    "A": r"\A",
    "z": r"\Z",
    "Z": r"(?=(?:\r\n|(?<!\r)\n|[\r\x85\u2028\u2029])?\Z)",
    "R": rf"(?:\r\n|[{_SETS['v']}])",
}
_METACHARACTERS = {
    ".": f"[^{_LINE_END}]",
    "^": r"(?:(?:\A|(?<=[\n\x85\u2028\u2029]|\r(?!\n)))(?!\Z))",
    "$": r"(?=[\r\x85\u2028\u2029]|(?<!\r)\n|\Z)",
}

_LEADING_FLAGS = re.compile(r"\(\?([ims]+)\)")
_ESCAPE = r"""
    \\Q (?P<quoted> .*? ) (?: \\E | \Z )
  | \\ (?P<code> x[0-9A-Fa-f]{2} | x\{[0-9A-Fa-f]{1,6}\} | u[0-9A-Fa-f]{4} | 0[0-3]?[0-7]{1,2} )
  | \\ (?P<property> [pP] (?: [A-Z] | \{ [^{}]+ \} ) )
  | \\ (?: k< (?P<name> [a-zA-Z][a-zA-Z0-9]* ) > | (?P<number> [1-9] ) )
  | \\ (?P<escape> . )
  | (?P<opening> \[ (?! : \^? [a-z]+ : \] ) \^? \]? )
"""
_OUTSIDE = re.compile(
    _ESCAPE
    + r"""
  | (?P<repeat> (?: [*+?] | \{ [0-9]+ (?: , [0-9]* )? \} ) [+?]? )
  | (?P<group> \( (?: \? (?: <?[=!] | > | <[a-zA-Z][a-zA-Z0-9]*> | i?: | i\) ) | (?! [?*] ) ) )
  | (?P<sign> [^(\\{] )
    """,
    re.VERBOSE | re.DOTALL,
)
_INSIDE = re.compile(
    _ESCAPE + r" | (?P<closing> \] ) | (?P<sign> (?! -- | \|\| | ~~ | \[: ) [^\\] )", re.VERBOSE | re.DOTALL
)


class NotARegex(ValueError):
    """Not a valid or supported regular expression. The text is the reason."""


def compile_java(pattern: str) -> regex.Pattern[str]:
    """Compile a Java pattern with the flag MULTILINE.

    Raises:
        NotARegex: it is invalid in Java, or cannot be translated exactly.
    """
    try:
        return regex.compile(_translate(pattern), regex.VERSION1)
    except regex.error as error:
        raise NotARegex(error.msg) from error
    except RecursionError as error:
        raise NotARegex("it is nested too deeply") from error


def _translate(pattern: str) -> str:
    flags = _LEADING_FLAGS.match(pattern)
    everything = {".": r"[\s\S]"} if flags and "s" in flags[1] else {}
    metacharacters = _METACHARACTERS | everything
    out = ["(?i)"] if flags and "i" in flags[1] else []
    counts: list[int] = []
    position, depth = flags.end() if flags else 0, 0
    while position < len(pattern):
        token = (_INSIDE if depth else _OUTSIDE).match(pattern, position)
        if token is None:
            raise NotARegex(f"[{pattern[position : position + 8]}] at {position} is not supported")
        kind = token.lastgroup or ""
        text = token[kind]
        if kind == "opening":
            depth += 1
            out.append(text.replace("]", r"\]"))
        elif kind == "closing":
            depth -= 1
            out.append(text)
        elif kind == "repeat":
            counts += map(int, re.findall("[0-9]+", text)[-1:])
            out.append(_bounded(text))
        elif kind in {"group", "sign"}:
            out.append(text if depth else metacharacters.get(text, text))
        else:
            out.append(_escape(kind, text, inside=depth > 0))
        position = token.end()
    if math.prod(max(count, 1) for count in counts) > MAX_COUNT:
        raise NotARegex(f"its counted repeats come to more than {MAX_COUNT:,}")
    return "".join(out)


def _bounded(repeat: str) -> str:
    """A repeat with an upper bound. A following `+` or `?` is kept."""
    if repeat[0] in "*+":
        return f"{{{'*+'.index(repeat[0])},{UNBOUNDED}}}{repeat[1:]}"
    return repeat.replace(",}", f",{UNBOUNDED}}}")


def _escape(kind: str, text: str, *, inside: bool) -> str:
    """The translation of a backslash and the text after it. Anchors and references have no meaning `inside` a set."""
    if kind == "quoted":
        return str(regex.escape(text))
    if kind == "code":
        base = 8 if text[0] == "0" else 16
        code = int(text[1:].strip("{}"), base)
        if code > sys.maxunicode:
            raise NotARegex(f"there is no character [\\{text}]")
        return str(regex.escape(chr(code)))
    if kind == "property":
        name = text[1:].strip("{}")
        return _set(_POSIX[name], negated=text[0] == "P") if name in _POSIX else "\\" + text
    if kind == "escape" and (plain := _plain_escape(text)):
        return plain
    if inside or (kind == "escape" and text not in _ANCHORS):
        raise NotARegex(f"the escape [\\{text}] is not supported")
    return rf"(?:\g<{text}>)" if kind in {"name", "number"} else _ANCHORS[text]


def _plain_escape(text: str) -> str | None:
    """A character, or a set of characters."""
    if text.lower() in _SETS:
        return _set(_SETS[text.lower()], negated=text.isupper())
    if text in _CONTROLS:
        return _CONTROLS[text]
    return None if text.isalnum() else str(regex.escape(text))


def _set(content: str, *, negated: bool) -> str:
    return f"[{'^' if negated else ''}{content}]"
