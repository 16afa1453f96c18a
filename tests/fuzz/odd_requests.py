"""Requests that no client would send, made from requests that clients do send.

A seed gives the same requests every time.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from random import Random

METHODS = ("GET", "PUT", "HEAD", "OPTIONS", "PATCH")
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    -(10**400),
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\x00",
    "\ud800",
    "é\u202e\u0301",
    "0" * 5000,
    "query",
    "http://127.0.0.1:9/",
    "file:///etc/passwd",
    "~nobody/x",
    "/proc/self",
    [],
    {},
    [[]],
    [{}],
    [None],
    {"": {}},
    {"type": []},
    {"type": {}},
    [["a", "b"], ["c"]],
    ["a"] * 3000,
)
ODD_BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe",
    b"[" * 10_000,
    b'{"a":1,"a":2}',
    b"1e999",
    b"{}garbage",
)
ODD_NAMES = ("", "nobody", "..", "%00", "%ff", "a/b", "_all", "x" * 300, "é", "'", "*")
ODD_HEADERS = (
    ("content-type", "text/plain"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "multipart/form-data; boundary=x"),
    ("accept", "text/html"),
    ("accept", "\xe9"),
    ("authorization", "Bearer é".encode().decode("latin-1")),
    ("authorization", "Basic Og=="),
    ("x-request-id", "a b"),
    ("x-hubgate-class", "bulk"),
    ("cache-control", "no-store"),
    ("content-encoding", "gzip"),
    ("x-wait-for-model", "maybe"),
    ("cookie", "hubgate=\xe9; ="),
    ("host", "[::1"),
)
ODD_QUERIES = (
    "?",
    "?pretty=maybe",
    "?timeout=-1s",
    "?timeout=1e9d",
    "?limit=x",
    "?a=%ff",
    "?" + "a=b&" * 200,
    "?days=0",
)


@dataclass(frozen=True)
class Request:
    """One request, and whether its body is a form."""

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path} {dict(self.headers)} {self.body[:3000]!r}"


@dataclass(frozen=True)
class Template:
    """A route, with bodies that it takes. Braces in the path are names."""

    method: str
    path: str
    bodies: Sequence[Mapping[str, Any]] = ()
    form: bool = False
    """Whether it takes a browser's form instead of JSON."""


class Fuzzer:
    """Makes odd requests.

    Args:
        random: where all chance comes from.
        templates: the routes.
        names: values for the names in their paths.
    """

    def __init__(self, random: Random, templates: Sequence[Template], names: Sequence[str]) -> None:
        self._random = random
        self._templates = templates
        self._names = names
        self._fields = sorted({name for template in templates for body in template.bodies for name in body})

    def requests(self) -> Iterator[Request]:
        """Without end: of existing routes, mostly with one or two things wrong."""
        random = self._random
        while True:
            template = random.choice(self._templates)
            method = template.method if random.random() < 0.97 else random.choice(METHODS)
            headers = dict([random.choice(ODD_HEADERS)]) if random.random() < 0.1 else {}
            path = self._path(template) + (random.choice(ODD_QUERIES) if random.random() < 0.1 else "")
            yield Request(method, path, self._body(template) if method != "GET" else b"", headers)

    def _path(self, template: Template) -> str:
        parts = [self._name() if part.startswith("{") else part for part in template.path.split("/")]
        return quote("/".join(parts), safe="/%:*'")

    def _name(self) -> str:
        return self._random.choice(self._names if self._random.random() < 0.9 else ODD_NAMES)

    def _body(self, template: Template) -> bytes:
        random = self._random
        if random.random() < 0.05:
            return random.choice(ODD_BODIES)
        body: Any = copy.deepcopy(dict(random.choice(template.bodies))) if template.bodies else {}
        for _ in range(random.choice((0, 1, 1, 2, 3))):
            body = self._spoiled(body)
        if template.form and isinstance(body, dict):
            return urlencode(
                {str(name): str(value) for name, value in body.items()}, errors="replace"
            ).encode()
        return json.dumps(body).encode("utf-8", "surrogatepass")

    def _spoiled(self, value: Any) -> Any:
        """The value with something in it replaced, removed or added."""
        random = self._random
        if isinstance(value, dict) and value and random.random() < 0.8:
            name = random.choice(sorted(value, key=str))
            return {**value, name: self._spoiled(value[name])}
        if isinstance(value, dict) and random.random() < 0.6:
            return {**value, random.choice(self._fields): random.choice(ODD_VALUES)}
        if isinstance(value, list) and value and random.random() < 0.6:
            at = random.randrange(len(value))
            return [*value[:at], self._spoiled(value[at]), *value[at + 1 :]]
        return random.choice(ODD_VALUES)
