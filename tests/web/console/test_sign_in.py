"""Signing in and out, CSRF, security headers, errors and preferences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from console_client import ConsoleClient
from running_gateway import RunningGateway

from hubgate.service.keys.limits import MAX_WRONG_KEYS
from hubgate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "an-admin-key-for-tests"
PAGES = ("/ui/models", "/ui/models/new", "/ui/keys", "/ui/settings", "/ui/models/states")


@pytest.fixture(scope="module")
def door_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("door")
    settings = Settings(
        home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0, admin_key=KEY
    )
    with RunningGateway(settings) as running:
        yield running


@pytest.fixture
def console(door_gateway: RunningGateway) -> ConsoleClient:
    return ConsoleClient(door_gateway)


def test_the_root_redirects_browsers_to_the_sign_in_and_then_to_the_models(console: ConsoleClient) -> None:
    assert console.get("/", accept="text/html").headers["location"] == "/ui"
    assert console.get("/ui").headers["location"] == "/ui/models"
    assert console.get("/ui/models?q=e5").headers["location"] == "/ui/sign-in?next=/ui/models%3Fq%3De5"


@pytest.mark.parametrize("path", PAGES)
def test_no_page_is_shown_without_a_session(console: ConsoleClient, path: str) -> None:
    page = console.get(path)
    assert (page.status, page.text) == (303, "")


def test_htmx_requests_without_a_session_redirect_the_browser(console: ConsoleClient) -> None:
    page = console.get("/ui/models/states", hx_request="true")
    assert page.headers["hx-redirect"] == "/ui/sign-in?next=/ui"


def test_an_admin_key_signs_in_and_is_not_kept(console: ConsoleClient) -> None:
    page = console.post("/ui/sign-in", {"key": KEY, "next": "/ui/keys"})
    assert (page.status, page.headers["location"]) == (303, "/ui/keys")
    cookie = page.headers["set-cookie"]
    assert {"HttpOnly", "Path=/ui", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
    assert KEY not in cookie
    assert KEY not in console.get("/ui/keys").text
    assert console.get("/ui/sign-in").headers["location"] == "/ui/models"


def test_the_session_cookie_is_valid_for_the_console_only(console: ConsoleClient) -> None:
    console.sign_in()
    assert console.get("/api/keys").status == 401


@pytest.mark.parametrize(
    "following", ["//evil.example", "https://evil.example", "/ui/\\evil", "/api/keys", ""]
)
def test_the_sign_in_redirects_only_into_the_console(console: ConsoleClient, following: str) -> None:
    page = console.post("/ui/sign-in", {"key": KEY, "next": following})
    assert page.headers["location"] == "/ui/models"


def test_wrong_keys_are_rejected_and_limited_while_a_valid_one_signs_in(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("attempts")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "k", port=0, admin_key=KEY)
    with RunningGateway(settings) as gateway:
        console = ConsoleClient(gateway)
        app = gateway.create_key("app")
        refused = console.post("/ui/sign-in", {"key": app})
        assert refused.status == 403
        assert "This key can only call models." in refused.words
        for key in ("", "كلید", *(str(n) for n in range(MAX_WRONG_KEYS - 2))):
            page = console.post("/ui/sign-in", {"key": key})
            assert page.status == 401
            assert "unknown" in page.words
            assert "set-cookie" not in page.headers
        page = console.post("/ui/sign-in", {"key": "wrong"})
        assert page.status == 429
        assert 0 < int(page.headers["retry-after"]) <= 60
        assert "A valid key is accepted at once." in page.words
        assert console.post("/ui/sign-in", {"key": KEY}).status == 303


def test_signing_out_invalidates_copies_of_the_cookie(console: ConsoleClient) -> None:
    console.sign_in()
    copy = dict(console.cookies)
    assert console.post("/ui/sign-out").headers["location"] == "/ui/sign-in"
    console.cookies = copy
    assert console.get("/ui/models").status == 303


def test_a_revoked_key_ends_its_sessions(door_gateway: RunningGateway, console: ConsoleClient) -> None:
    console.sign_in(door_gateway.create_key("second", admin=True))
    assert console.get("/ui/models").status == 200
    assert door_gateway.request("DELETE", "/api/keys/second").status == 204
    assert console.get("/ui/models").status == 303


class TestForms:
    def test_a_form_without_the_csrf_token_is_rejected(self, console: ConsoleClient) -> None:
        console.sign_in()
        for token in ("", "x", ConsoleClient(console.gateway).csrf):
            page = console.post("/ui/keys/new", {"csrf": token, "name": "stolen"})
            assert page.status == 403
            assert "does not belong to your session" in page.words
        assert "stolen" not in console.get("/ui/keys").text

    def test_the_csrf_token_may_be_a_header(self, console: ConsoleClient) -> None:
        console.sign_in()
        page = console.post("/ui/paste", {"csrf": "", "paste": "a/b"}, x_csrf_token=console.csrf)
        assert page.status == 200

    @pytest.mark.parametrize("path", ["/ui/sign-in", "/ui/preferences", "/ui/keys"])
    def test_no_other_site_can_send_a_form(self, console: ConsoleClient, path: str) -> None:
        page = console.post(path, {"key": KEY}, sec_fetch_site="cross-site")
        assert page.status == 403
        assert "set-cookie" not in page.headers

    def test_an_invalid_form_body_is_an_error(self, console: ConsoleClient) -> None:
        many = {f"f{number}": "" for number in range(300)}
        assert console.post("/ui/sign-in", many).status == 400


class TestEveryPage:
    def test_the_content_security_policy_allows_only_own_resources(self, console: ConsoleClient) -> None:
        console.sign_in()
        for path in (*PAGES, "/ui/sign-in", "/ui/nowhere"):
            headers = console.get(path).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"

    def test_pages_contain_no_inline_scripts_or_styles(self, console: ConsoleClient) -> None:
        console.sign_in()
        for path in PAGES:
            text = console.get(path).text
            assert "<style" not in text
            assert " style=" not in text
            assert " onclick" not in text
            assert text.count("<script") == text.count("<script src=")

    def test_the_first_page_is_small(self, console: ConsoleClient) -> None:
        page = console.get("/ui/sign-in")
        files = ("console.css", "console.js", "htmx.min.js", "mark.svg")
        texts = [page.text, *(console.get(f"/ui/static/{name}").text for name in files)]
        assert sum(len(text.encode()) for text in texts) < 100_000

    def test_static_files_are_cached_forever_under_their_digest(self, console: ConsoleClient) -> None:
        found = console.get("/ui/sign-in").text.split('href="/ui/static/console.css?')[1].partition('"')[0]
        kept = console.get(f"/ui/static/console.css?{found}").headers
        assert kept["cache-control"] == "public, max-age=31536000, immutable"
        assert kept["content-type"] == "text/css; charset=utf-8"
        assert console.get("/ui/static/console.css?old").headers["cache-control"] == "no-cache"
        assert console.get("/ui/static/htmx.LICENSE").status == 404
        assert console.get("/ui/static/..%2fvisit.py").status == 404

    def test_an_unknown_page_is_an_error_in_html(self, console: ConsoleClient) -> None:
        for method in (console.get, console.post):
            page = method("/ui/nowhere/at/all")
            assert page.status == 404
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert "Not found" in page.words

    def test_an_error_is_a_notice_for_htmx(self, console: ConsoleClient) -> None:
        console.sign_in()
        page = console.post("/ui/models/nothing/enable", hx_request="true")
        assert page.status == 404
        assert page.headers["hx-retarget"] == "#notice"
        assert "<html" not in page.text


class TestPreferences:
    def test_the_browsers_language_is_used_until_another_is_chosen(self, console: ConsoleClient) -> None:
        page = console.get("/ui/sign-in", accept_language="fa-IR,en;q=0.5")
        assert '<html lang="fa" dir="rtl"' in page.text
        assert "کلید مدیر" in page.words
        back = console.post("/ui/preferences", {"language": "ja", "back": "/ui/sign-in"})
        assert back.headers["location"] == "/ui/sign-in"
        page = console.get("/ui/sign-in", accept_language="fa-IR")
        assert '<html lang="ja" dir="ltr"' in page.text

    def test_a_theme_is_remembered(self, console: ConsoleClient) -> None:
        console.post("/ui/preferences", {"theme": "dark", "back": "/ui/sign-in"})
        assert 'data-theme="dark"' in console.get("/ui/sign-in").text

    def test_unknown_languages_and_themes_are_not_stored(self, console: ConsoleClient) -> None:
        page = console.post("/ui/preferences", {"theme": "pink", "language": "tlh"})
        assert "set-cookie" not in page.headers
        console.cookies["hubgate_theme"] = "pink"
        assert 'data-theme="auto"' in console.get("/ui/sign-in").text

    def test_an_error_is_translated_with_the_english_message_as_details(self, console: ConsoleClient) -> None:
        console.sign_in()
        page = console.get("/ui/models/nothing/edit", accept_language="zh-CN")
        assert page.status == 404
        assert "没有这个名称的模型" in page.words
        assert "No endpoint is named [nothing]." in page.words
