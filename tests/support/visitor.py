"""A browser without a screen: it keeps cookies, sends forms, and follows no redirect by itself."""

from __future__ import annotations

import html
import http.client
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import RunningGate


@dataclass(frozen=True)
class Page:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def words(self) -> str:
        """The text that a reader sees, in one line."""
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", self.text)).split())

    @property
    def token(self) -> str:
        """The form token of its session."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.text)
        assert found, self.text
        return found[1]


@dataclass
class Visitor:
    """Somebody at a browser."""

    gate: RunningGate
    cookies: dict[str, str] = field(default_factory=dict)
    csrf: str = ""

    def get(self, path: str, **headers: str) -> Page:
        """One page."""
        return self._ask("GET", path, None, headers)

    def post(self, path: str, form: dict[str, str] | None = None, **headers: str) -> Page:
        """Send a form, with the session's token unless the form has one."""
        sent = {"csrf": self.csrf, **(form or {})}
        return self._ask("POST", path, urlencode(sent).encode(), headers)

    @contextmanager
    def asking(self, path: str, form: dict[str, str]) -> Iterator[None]:
        """Send a form, and leave at the end of the context whether or not an answer has come."""
        connection = http.client.HTTPConnection(urlsplit(self.gate.url).netloc, timeout=60)
        try:
            connection.request("POST", path, urlencode({"csrf": self.csrf, **form}), self._cookies())
            yield
        finally:
            connection.close()

    def sign_in(self, key: str | None = None) -> Page:
        """Show a key at the door, the admin key unless another is given."""
        page = self.post("/ui/sign-in", {"key": key or self.gate.admin_key})
        if page.status == 303:
            self.csrf = self.get("/ui/settings").token
        return page

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Page:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= self._cookies()
        connection = http.client.HTTPConnection(urlsplit(self.gate.url).netloc, timeout=60)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        for cookie in answer.headers.get_all("set-cookie") or ():
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
        return Page(answer.status, answer.headers, text)

    def _cookies(self) -> dict[str, str]:
        return {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
