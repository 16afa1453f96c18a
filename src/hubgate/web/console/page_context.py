"""One request of a browser to the console, and how its page is rendered."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from hubgate import __version__
from hubgate.core.off_loop import off_loop
from hubgate.domain.errors import InvalidRequest
from hubgate.web.console.languages import Language, choose, languages
from hubgate.web.console.session import Session
from hubgate.web.console.templating import templates


class NavigationEntry(NamedTuple):
    """An entry in the navigation bar."""

    order: int
    name: str
    """Its title is the message `nav.<name>`."""
    path: str


HOME = "/ui/models"
LANGUAGE_COOKIE, THEME_COOKIE = "hubgate_language", "hubgate_theme"
SAFE_METHODS = frozenset({"GET", "HEAD"})
THEMES = ("auto", "light", "dark")
NAVIGATION = (
    NavigationEntry(10, "models", HOME),
    NavigationEntry(40, "keys", "/ui/keys"),
    NavigationEntry(70, "audit", "/ui/audit"),
    NavigationEntry(80, "settings", "/ui/settings"),
)
"""The pages of the console itself in the navigation bar."""
_MAX_FIELDS = 200


@dataclass(slots=True)
class PageContext:
    """What a page handler receives."""

    request: Request
    language: Language
    theme: str
    session: Session | None = None
    """`None` without a sign-in."""
    csrf_token: str = ""
    check_csrf_token: Callable[[str], None] = lambda _: None
    """For the handler of an upload. Raises: NotPermitted."""
    navigation: Sequence[NavigationEntry] = NAVIGATION

    @classmethod
    def of(cls, request: Request, navigation: Sequence[NavigationEntry] = NAVIGATION) -> PageContext:
        """The context of a request that is not authenticated yet."""
        cookies, headers = request.cookies, request.headers
        language = choose(cookies.get(LANGUAGE_COOKIE), headers.get("accept-language", ""))
        theme = cookies.get(THEME_COOKIE, "auto")
        return cls(request, language, theme if theme in THEMES else "auto", navigation=navigation)

    @property
    def is_htmx(self) -> bool:
        """Whether htmx requests a part of a page."""
        return "hx-request" in self.request.headers

    @property
    def return_path(self) -> str:
        """Path and query of the page that the reader is on: for a sent form, the page with the form."""
        is_safe = self.request.method in SAFE_METHODS
        try:
            url = self.request.url if is_safe else URL(self.request.headers["referer"])
            return url.path + (f"?{url.query}" if url.query else "")
        except (KeyError, ValueError):  # no referer, or not a URL
            return HOME

    def translate(self, key: str, **values: object) -> str:
        """The message of a key in the reader's language."""
        return self.language.translate(key, **values)

    async def form(self, raw: Collection[str] = ()) -> dict[str, str]:
        """The fields of a sent form; the last wins if a name repeats. Values are stripped, except those in `raw`.

        Raises:
            InvalidRequest: the body is not a form.
        """
        body = await self.request.body()
        try:
            pairs = await off_loop(
                len(body),
                parse_qsl,
                body.decode(),
                keep_blank_values=True,
                strict_parsing=False,
                max_num_fields=_MAX_FIELDS,
                errors="strict",
            )
        except ValueError:
            raise InvalidRequest("The form cannot be read.", remedy="Reload the page.") from None
        return {name: value if name in raw else value.strip() for name, value in pairs}

    def render(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page, or a part of one for htmx."""
        language = self.language
        text = (
            templates()
            .get_template(template)
            .render(
                context=self,
                t=language.translate,
                number=language.number,
                percent=language.percent,
                size=language.size,
                date=language.date,
                moment=language.moment,
                ago=lambda at: language.ago(time.time() - at),
                language=language,
                languages=languages(),
                themes=THEMES,
                navigation=self.navigation,
                version=__version__,
                **values,
            )
        )
        return HTMLResponse(text, status)

    def redirect(self, path: str) -> Response:
        """Send the browser to another page, also in reply to htmx."""
        if self.is_htmx:
            return HTMLResponse("", headers={"HX-Redirect": path})
        return RedirectResponse(path, 303)
