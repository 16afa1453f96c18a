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
def visitor(door_gateway: RunningGateway) -> ConsoleClient:
    return ConsoleClient(door_gateway)


def test_the_root_redirects_browsers_to_the_sign_in_and_then_to_the_models(visitor: ConsoleClient) -> None:
    assert visitor.get("/", accept="text/html").headers["location"] == "/ui"
    assert visitor.get("/ui").headers["location"] == "/ui/models"
    assert visitor.get("/ui/models?q=e5").headers["location"] == "/ui/sign-in?next=/ui/models%3Fq%3De5"


@pytest.mark.parametrize("path", PAGES)
def test_no_page_is_shown_without_a_session(visitor: ConsoleClient, path: str) -> None:
    page = visitor.get(path)
    assert (page.status, page.text) == (303, "")


def test_htmx_requests_without_a_session_redirect_the_browser(visitor: ConsoleClient) -> None:
    page = visitor.get("/ui/models/states", hx_request="true")
    assert page.headers["hx-redirect"] == "/ui/sign-in?next=/ui"


def test_an_admin_key_signs_in_and_is_not_kept(visitor: ConsoleClient) -> None:
    page = visitor.post("/ui/sign-in", {"key": KEY, "next": "/ui/keys"})
    assert (page.status, page.headers["location"]) == (303, "/ui/keys")
    cookie = page.headers["set-cookie"]
    assert {"HttpOnly", "Path=/ui", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
    assert KEY not in cookie
    assert KEY not in visitor.get("/ui/keys").text
    assert visitor.get("/ui/sign-in").headers["location"] == "/ui/models"


def test_the_session_cookie_is_valid_for_the_console_only(visitor: ConsoleClient) -> None:
    visitor.sign_in()
    assert visitor.get("/api/keys").status == 401


@pytest.mark.parametrize(
    "following", ["//evil.example", "https://evil.example", "/ui/\\evil", "/api/keys", ""]
)
def test_the_sign_in_redirects_only_into_the_console(visitor: ConsoleClient, following: str) -> None:
    page = visitor.post("/ui/sign-in", {"key": KEY, "next": following})
    assert page.headers["location"] == "/ui/models"


def test_wrong_keys_are_rejected_and_limited_while_a_valid_one_signs_in(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("attempts")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "k", port=0, admin_key=KEY)
    with RunningGateway(settings) as gateway:
        visitor = ConsoleClient(gateway)
        app = gateway.create_key("app")
        refused = visitor.post("/ui/sign-in", {"key": app})
        assert refused.status == 403
        assert "This key can only call models." in refused.words
        for key in ("", "كلید", *(str(n) for n in range(MAX_WRONG_KEYS - 2))):
            page = visitor.post("/ui/sign-in", {"key": key})
            assert page.status == 401
            assert "unknown" in page.words
            assert "set-cookie" not in page.headers
        page = visitor.post("/ui/sign-in", {"key": "wrong"})
        assert page.status == 429
        assert 0 < int(page.headers["retry-after"]) <= 60
        assert "A valid key is accepted at once." in page.words
        assert visitor.post("/ui/sign-in", {"key": KEY}).status == 303


def test_signing_out_invalidates_copies_of_the_cookie(visitor: ConsoleClient) -> None:
    visitor.sign_in()
    copy = dict(visitor.cookies)
    assert visitor.post("/ui/sign-out").headers["location"] == "/ui/sign-in"
    visitor.cookies = copy
    assert visitor.get("/ui/models").status == 303


def test_a_revoked_key_ends_its_sessions(door_gateway: RunningGateway, visitor: ConsoleClient) -> None:
    visitor.sign_in(door_gateway.create_key("second", admin=True))
    assert visitor.get("/ui/models").status == 200
    assert door_gateway.request("DELETE", "/api/keys/second").status == 204
    assert visitor.get("/ui/models").status == 303


class TestForms:
    def test_a_form_without_the_csrf_token_is_rejected(self, visitor: ConsoleClient) -> None:
        visitor.sign_in()
        for token in ("", "x", ConsoleClient(visitor.gateway).csrf):
            page = visitor.post("/ui/keys/new", {"csrf": token, "name": "stolen"})
            assert page.status == 403
            assert "does not belong to your session" in page.words
        assert "stolen" not in visitor.get("/ui/keys").text

    def test_the_csrf_token_may_be_a_header(self, visitor: ConsoleClient) -> None:
        visitor.sign_in()
        page = visitor.post("/ui/paste", {"csrf": "", "paste": "a/b"}, x_csrf_token=visitor.csrf)
        assert page.status == 200

    @pytest.mark.parametrize("path", ["/ui/sign-in", "/ui/preferences", "/ui/keys"])
    def test_no_other_site_can_send_a_form(self, visitor: ConsoleClient, path: str) -> None:
        page = visitor.post(path, {"key": KEY}, sec_fetch_site="cross-site")
        assert page.status == 403
        assert "set-cookie" not in page.headers

    def test_an_invalid_form_body_is_an_error(self, visitor: ConsoleClient) -> None:
        many = {f"f{number}": "" for number in range(300)}
        assert visitor.post("/ui/sign-in", many).status == 400


class TestEveryPage:
    def test_the_content_security_policy_allows_only_own_resources(self, visitor: ConsoleClient) -> None:
        visitor.sign_in()
        for path in (*PAGES, "/ui/sign-in", "/ui/nowhere"):
            headers = visitor.get(path).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"

    def test_pages_contain_no_inline_scripts_or_styles(self, visitor: ConsoleClient) -> None:
        visitor.sign_in()
        for path in PAGES:
            text = visitor.get(path).text
            assert "<style" not in text
            assert " style=" not in text
            assert " onclick" not in text
            assert text.count("<script") == text.count("<script src=")

    def test_the_first_page_is_small(self, visitor: ConsoleClient) -> None:
        page = visitor.get("/ui/sign-in")
        files = ("console.css", "console.js", "htmx.min.js", "mark.svg")
        texts = [page.text, *(visitor.get(f"/ui/static/{name}").text for name in files)]
        assert sum(len(text.encode()) for text in texts) < 100_000

    def test_static_files_are_cached_forever_under_their_digest(self, visitor: ConsoleClient) -> None:
        found = visitor.get("/ui/sign-in").text.split('href="/ui/static/console.css?')[1].partition('"')[0]
        kept = visitor.get(f"/ui/static/console.css?{found}").headers
        assert kept["cache-control"] == "public, max-age=31536000, immutable"
        assert kept["content-type"] == "text/css; charset=utf-8"
        assert visitor.get("/ui/static/console.css?old").headers["cache-control"] == "no-cache"
        assert visitor.get("/ui/static/htmx.LICENSE").status == 404
        assert visitor.get("/ui/static/..%2fvisit.py").status == 404

    def test_an_unknown_page_is_an_error_in_html(self, visitor: ConsoleClient) -> None:
        for method in (visitor.get, visitor.post):
            page = method("/ui/nowhere/at/all")
            assert page.status == 404
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert "Not found" in page.words

    def test_an_error_is_a_notice_for_htmx(self, visitor: ConsoleClient) -> None:
        visitor.sign_in()
        page = visitor.post("/ui/models/nothing/enable", hx_request="true")
        assert page.status == 404
        assert page.headers["hx-retarget"] == "#notice"
        assert "<html" not in page.text


class TestPreferences:
    def test_the_browsers_language_is_used_until_another_is_chosen(self, visitor: ConsoleClient) -> None:
        page = visitor.get("/ui/sign-in", accept_language="fa-IR,en;q=0.5")
        assert '<html lang="fa" dir="rtl"' in page.text
        assert "کلید مدیر" in page.words
        back = visitor.post("/ui/preferences", {"language": "ja", "back": "/ui/sign-in"})
        assert back.headers["location"] == "/ui/sign-in"
        page = visitor.get("/ui/sign-in", accept_language="fa-IR")
        assert '<html lang="ja" dir="ltr"' in page.text

    def test_a_theme_is_remembered(self, visitor: ConsoleClient) -> None:
        visitor.post("/ui/preferences", {"theme": "dark", "back": "/ui/sign-in"})
        assert 'data-theme="dark"' in visitor.get("/ui/sign-in").text

    def test_unknown_languages_and_themes_are_not_stored(self, visitor: ConsoleClient) -> None:
        page = visitor.post("/ui/preferences", {"theme": "pink", "language": "tlh"})
        assert "set-cookie" not in page.headers
        visitor.cookies["hubgate_theme"] = "pink"
        assert 'data-theme="auto"' in visitor.get("/ui/sign-in").text

    def test_an_error_is_translated_with_the_english_message_as_details(self, visitor: ConsoleClient) -> None:
        visitor.sign_in()
        page = visitor.get("/ui/models/nothing/edit", accept_language="zh-CN")
        assert page.status == 404
        assert "没有这个名称的模型" in page.words
        assert "No endpoint is named [nothing]." in page.words
