"""An HTTP client for the console: it keeps cookies, sends forms, and does not follow redirects."""

from __future__ import annotations

import html
import http.client
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from running_gateway import RunningGateway


@dataclass(frozen=True)
class Page:
    """A response of the console."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def words(self) -> str:
        """The visible text in one line."""
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", self.text)).split())

    @property
    def token(self) -> str:
        """The CSRF token of the session."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.text)
        assert found, self.text
        return found[1]


@dataclass
class ConsoleClient:
    """A browser session without a browser."""

    gateway: RunningGateway
    cookies: dict[str, str] = field(default_factory=dict)
    csrf: str = ""

    def get(self, path: str, **headers: str) -> Page:
        return self._ask("GET", path, None, headers)

    def post(self, path: str, form: dict[str, str] | None = None, **headers: str) -> Page:
        """Send a form, with the session's CSRF token unless the form has one."""
        sent = {"csrf": self.csrf, **(form or {})}
        return self._ask("POST", path, urlencode(sent).encode(), headers)

    def upload(self, path: str, name: str, content: bytes) -> Page:
        """Send a form with a file, and the session's CSRF token."""
        head = f'--cut\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{self.csrf}\r\n'
        head += f'--cut\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + b"\r\n--cut--\r\n"
        return self._ask("POST", path, body, {"content-type": "multipart/form-data; boundary=cut"})

    @contextmanager
    def asking(self, path: str, form: dict[str, str]) -> Iterator[None]:
        """Send a form, and disconnect at the end of the context without reading the reply."""
        connection = http.client.HTTPConnection(urlsplit(self.gateway.url).netloc, timeout=240)
        try:
            connection.request("POST", path, urlencode({"csrf": self.csrf, **form}), self._cookies())
            yield
        finally:
            connection.close()

    def sign_in(self, key: str | None = None) -> Page:
        """Sign in, with the admin key unless another is given."""
        page = self.post("/ui/sign-in", {"key": key or self.gateway.admin_key})
        if page.status == 303:
            self.csrf = self.get("/ui/settings").token
        return page

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Page:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= self._cookies()
        connection = http.client.HTTPConnection(urlsplit(self.gateway.url).netloc, timeout=240)
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


class FormFields(HTMLParser):
    """The fields that a browser would send of a page's form, unchanged."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sent: dict[str, str] = {}
        self._select: str | None = None
        self._text: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        name = values.get("name", "")
        if "form" in values or not name:
            name = ""
        match tag:
            case "input" if name and (values.get("type") not in {"radio", "checkbox"} or "checked" in values):
                self.sent[name] = values.get("value", "on").replace("\n", "")  # it has but one line
            case "select":
                self._select = name
            case "option" if self._select and (self._select not in self.sent or "selected" in values):
                self.sent[self._select] = values["value"]
            case "textarea" if name:
                self._text, self.sent[name] = name, ""

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self.sent[self._text] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = None
        if tag == "textarea" and self._text is not None:
            self.sent[self._text] = self.sent[self._text].removeprefix("\n").replace("\n", "\r\n")
            self._text = None
