"""One request of a browser to the console, and how a page is made for it."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from hubgate import __version__
from hubgate.domain.errors import InvalidRequest
from hubgate.web.console.console_words import in_console_words, setting
from hubgate.web.console.languages import Language, choose, languages
from hubgate.web.console.session import Session
from hubgate.web.console.static_files import static_url

LANGUAGE_COOKIE, THEME_COOKIE = "hubgate_language", "hubgate_theme"
READING = frozenset({"GET", "HEAD"})
THEMES = ("auto", "light", "dark")
NAVIGATION = (
    ("models", "/ui/models"),
    ("keys", "/ui/keys"),
    ("usage", "/ui/usage"),
    ("audit", "/ui/audit"),
    ("settings", "/ui/settings"),
)
"""The pages in the bar, each by the name whose words are `nav.<name>`."""
_MOST_FIELDS = 200

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(in_console_words=in_console_words, setting=setting)
_templates.globals.update(static_url=static_url, quote=lambda text: quote(str(text), safe=""))


@dataclass(slots=True)
class Visit:
    """What a page is given: who asks for what, in which language."""

    request: Request
    language: Language
    theme: str
    session: Session | None = None
    """`None` for who has not signed in."""
    form_token: str = ""
    """What the forms of the session bring along."""

    @classmethod
    def of(cls, request: Request) -> Visit:
        """A visit of somebody who is not known yet."""
        cookies, headers = request.cookies, request.headers
        language = choose(cookies.get(LANGUAGE_COOKIE), headers.get("accept-language", ""))
        theme = cookies.get(THEME_COOKIE, "auto")
        return cls(request, language, theme if theme in THEMES else "auto")

    @property
    def is_part(self) -> bool:
        """Whether htmx asks, for a part of a page."""
        return "hx-request" in self.request.headers

    @property
    def here(self) -> str:
        """The path and the query of this page; of the one whose form was sent, where this answers that."""
        try:
            url = self.request.url if self.request.method in READING else URL(self.request.headers["referer"])
            return url.path + (f"?{url.query}" if url.query else "")
        except (KeyError, ValueError):  # the browser does not say, or not in an address
            return "/ui/models"

    def say(self, key: str, **values: object) -> str:
        """The words of a key in the visitor's language."""
        return self.language.say(key, **values)

    async def form(self, raw: Collection[str] = ()) -> dict[str, str]:
        """The fields of a sent form; of several of one name the last. Spaces around it are cut, unless it is `raw`.

        Raises:
            InvalidRequest: it is no form.
        """
        try:
            pairs = parse_qsl(
                (await self.request.body()).decode(),
                keep_blank_values=True,
                strict_parsing=False,
                max_num_fields=_MOST_FIELDS,
                errors="strict",
            )
        except ValueError:
            raise InvalidRequest("The form cannot be read.", remedy="Load the page again.") from None
        return {name: value if name in raw else value.strip() for name, value in pairs}

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page, or a part of one."""
        language = self.language
        text = _templates.get_template(template).render(
            visit=self,
            t=language.say,
            number=language.number,
            percent=language.percent,
            date=language.date,
            moment=language.moment,
            ago=lambda at: language.ago(time.time() - at),
            language=language,
            languages=languages(),
            themes=THEMES,
            navigation=NAVIGATION,
            version=__version__,
            **values,
        )
        return HTMLResponse(text, status)

    def go(self, path: str) -> Response:
        """Send the browser to another page, also if htmx asked."""
        if self.is_part:
            return HTMLResponse("", headers={"HX-Redirect": path})
        return RedirectResponse(path, 303)
