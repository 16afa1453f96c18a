"""Every encoding of a token echoed by a server is redacted, and any error reply can be processed."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from hubgate.domain.errors import Cause
from hubgate.domain.secret import Secret
from hubgate.upstreams.access_tokens import redact
from hubgate.upstreams.engines.replies.errors import refusal
from hubgate.upstreams.http.messages import HttpReply

if TYPE_CHECKING:
    from collections.abc import Callable

HARD = "p/w+d%=\"ümläut\\&<>'end of it"
PLAIN = "ThisIsTheTokenOfTheTests0123456789"


def words(body: bytes, token: str) -> str:
    error = refusal(HttpReply(status=400, headers={}, body=body), Secret(token))
    return f"{error} {error.server_message} {error!r}"


def url_safe(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def twice_escaped(text: str) -> str:
    return json.dumps(json.dumps({"said": text}))


SPELLINGS: list[Callable[[str], str]] = [
    str,
    quote,
    lambda text: quote(text, safe=""),
    lambda text: re.sub("%..", lambda code: code[0].lower(), quote(text, safe="")),
    lambda text: quote(quote(text, safe=""), safe=""),
    lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    lambda text: "".join(f"\\u{ord(letter):04X}" for letter in text),
    json.dumps,
    lambda text: json.dumps(text, ensure_ascii=False).replace("/", "\\/"),
    twice_escaped,
    repr,
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: base64.b64encode(f"x{text}".encode()).decode(),
    lambda text: base64.b64encode(f"Bearer {text}!".encode()).decode(),
    lambda text: base64.b64encode(f"user:{text}, and more".encode()).decode(),
    url_safe,
    lambda text: quote(url_safe(f"ab{text}")),
    lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    lambda text: "".join(f"&#x{ord(letter):x};" for letter in text),
]


@pytest.mark.parametrize("token", [PLAIN, HARD])
@pytest.mark.parametrize("number", range(len(SPELLINGS)))
def test_every_encoding_of_a_token_is_redacted(number: int, token: str) -> None:
    spelled = SPELLINGS[number](token)
    for body in (f"no: {spelled}.".encode(), json.dumps({"error": f"no: {spelled}."}).encode()):
        told = words(body, token)
        assert "…" in told
        for secret in (spelled, token):
            middle = len(secret) // 2
            assert secret[middle - 5 : middle + 5] not in told


def test_each_of_several_tokens_is_redacted() -> None:
    assert redact(Secret("first-token\nsecond-token"), "first-token, second-token") == "…, …"


def test_text_is_unchanged_without_a_token() -> None:
    for token in (None, Secret("")):
        assert redact(token, "some words") == "some words"


def test_unrelated_words_are_kept() -> None:
    said = "the input is too long: 600 tokens, 512 are read (100%)"
    assert redact(Secret("abc"), said) == said
    assert redact(Secret(HARD), said) == said


@pytest.mark.parametrize("sign", ["\\", "%25", "%", "a", "<", "&#", '"'])
def test_redacting_repeated_characters_is_fast(sign: str) -> None:
    assert words((sign * 65_536).encode()[:65_536], "a" * 40)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        b'{"error": ' + b'{"message": ' * 1000 + b'"x"' + b"}" * 1001,
        b'{"error": {"msg": "x", "loc": ' + b"[" * 900 + b"]" * 900 + b"}}",
        b"[" * 100_000,
        b'{"estimated_time": ' + b"[" * 900 + b"]" * 900 + b"}",
    ],
)
def test_deeply_nested_reply_is_an_ordinary_error_reply(body: bytes) -> None:
    error = refusal(HttpReply(status=500, headers={}, body=body), None)
    assert error.cause is Cause.UPSTREAM_FAILED
