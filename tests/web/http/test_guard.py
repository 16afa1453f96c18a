"""The guard around every request, called as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
from scripted_gateway import ADMIN_KEY
from starlette.routing import Route

from hubgate.domain.calls import Embed
from hubgate.domain.errors import InvalidRequest
from hubgate.service.keys.limits import MAX_WRONG_KEYS
from hubgate.web.app import FACES, create_app
from hubgate.web.http.body import BROKEN, EXCESS, FAULT, ON_DISCONNECT, SLOW
from hubgate.web.http.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import Call, Result
    from hubgate.web.http.asgi import AsgiApp, Message, Receive, Scope, Send

KEY = "hg_0123abcd_aVerySecretKeyOfSomebodyWhoPastedIt_Wrongly"
GONE: Message = {"type": "http.disconnect"}


class Client:
    """One request; the server delivers `messages`, then nothing until `leave`."""

    def __init__(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        messages: Iterable[Message] = ({"type": "http.request", "body": b"", "more_body": False},),
        key: str | None = ADMIN_KEY,
    ) -> None:
        given = {"authorization": f"Bearer {key}"} if key else {}
        self.scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(n.encode(), v.encode("latin-1")) for n, v in (given | (headers or {})).items()],
        }
        self._messages = list(messages)
        self._left = asyncio.Event()
        self.sent: list[Message] = []

    def leave(self) -> None:
        self._left.set()
        self.scope[ON_DISCONNECT]()

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        await self._left.wait()
        return GONE

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def ask(self, app: AsgiApp) -> Client:
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()


def guarded(scripted: ScriptedGateway, app: AsgiApp, *, keys_in_path: bool = False) -> Guard:
    return Guard(
        app,
        FACES,
        scripted.access,
        scripted.meter,
        visible=scripted.service.visible,
        max_body_bytes=1000,
        max_total_body_bytes=1000,
        keys_in_path=keys_in_path,
    )


def without_keys_in_path(scripted: ScriptedGateway) -> AsgiApp:
    return create_app(
        scripted.service,
        scripted.access,
        scripted.meter,
        None,
        hub=scripted.hub,
        parts=scripted.parts,
        max_body_bytes=1000,
        max_total_body_bytes=1000,
        keys_in_path=False,
    )


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The lines of the access log, as they come."""
    caplog.set_level(logging.INFO, "hubgate.access")
    handler = _Lines()
    logger = logging.getLogger("hubgate.access")
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def raising(error: Exception) -> Any:
    def fail(call: Call) -> Result:
        raise error

    return fail


class TestRequestId:
    async def test_request_id_is_returned_and_logged(
        self, scripted: ScriptedGateway, lines: list[str]
    ) -> None:
        asked = await Client("GET", "/v1/models", headers={"x-request-id": "job-7.a:b_C"}).ask(scripted.app)
        assert asked.headers["x-request-id"] == "job-7.a:b_C"
        assert "id=job-7.a:b_C" in lines[0]

    @pytest.mark.parametrize("given", [None, "", "with space", "a" * 129, "x\ny", "ü"])
    async def test_missing_or_invalid_request_id_is_replaced(
        self, scripted: ScriptedGateway, given: str | None
    ) -> None:
        headers = {} if given is None else {"x-request-id": given}
        asked = await Client("GET", "/v1/models", headers=headers).ask(scripted.app)
        assert re.fullmatch(r"[0-9a-f]{16}", asked.headers["x-request-id"])

    @pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/nothing", "/_inference/none", "/hf/none"])
    async def test_every_response_has_the_request_id_and_product_headers(
        self, scripted: ScriptedGateway, path: str
    ) -> None:
        asked = await Client("GET", path, headers={"x-request-id": "mine"}).ask(scripted.app)
        assert asked.headers["x-request-id"] == "mine"
        assert asked.headers["x-elastic-product"] == "Elasticsearch"
        assert asked.headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize("path", ["/api/keys", "/api/nothing", "/metrics"])
    async def test_responses_of_hubgates_own_api_are_not_cacheable(
        self, scripted: ScriptedGateway, path: str
    ) -> None:
        asked = await Client("GET", path).ask(scripted.app)
        assert asked.headers["cache-control"] == "no-store"


class TestLog:
    async def test_access_log_line_has_key_endpoint_and_cause(
        self, scripted: ScriptedGateway, lines: list[str]
    ) -> None:
        body = b'{"model":"e5","input":["a","b"]}'
        message = {"type": "http.request", "body": body, "more_body": False}
        await Client("POST", "/v1/embeddings", messages=[message]).ask(scripted.app)
        await Client("GET", "/v1/models", key=None).ask(scripted.app)
        assert re.fullmatch(
            r"POST /v1/embeddings 200 \d+\.\dms id=[0-9a-f]{16} client=- key=admin endpoint=e5 texts=2 cause=ok",
            lines[0],
        )
        assert re.search(r"GET /v1/models 401 .* key=- endpoint=- texts=0 cause=not_authenticated", lines[1])

    @pytest.mark.parametrize(
        "path",
        ["/x 200 1.0ms id=1 key=admin", '/"x" key=admin', "/x\u2028key=admin", "key=admin", ""],
    )
    async def test_logged_path_is_one_word_and_cannot_forge_a_field(
        self, scripted: ScriptedGateway, lines: list[str], path: str
    ) -> None:
        asked = Client("GET", "/", headers={"x-request-id": "mine"})
        asked.scope["path"] = path
        await asked.ask(scripted.app)
        line = r"GET [!#-<>-~]+ \d+ \d+\.\dms id=mine client=- key=admin endpoint=- texts=0 cause=\w+"
        assert re.fullmatch(line, lines[0]), lines[0]

    @pytest.mark.parametrize(
        ("client", "shown"),
        [("192.0.2.7", "192.0.2.7"), ("fe80::1%eth0", "fe80::1%eth0"), ("x key=admin", "-")],
    )
    async def test_access_log_shows_a_valid_client_address_only(
        self, scripted: ScriptedGateway, lines: list[str], client: str, shown: str
    ) -> None:
        asked = Client("GET", "/v1/models")
        asked.scope["client"] = (client, 50_000)
        await asked.ask(scripted.app)
        assert f" client={shown} key=admin " in lines[0]

    async def test_logged_path_is_truncated_and_escaped(
        self, scripted: ScriptedGateway, lines: list[str]
    ) -> None:
        long = await Client("GET", "/" + "a" * 1_000_000).ask(scripted.app)
        assert len(lines[0]) < 400
        assert len(long.body) < 1000
        await Client("GET", "/a\nGET /forged 200\x1b[2J").ask(scripted.app)
        assert "\n" not in lines[1]
        assert "\x1b" not in lines[1]

    async def test_access_log_writes_nothing_at_warning_level(
        self, scripted: ScriptedGateway, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "hubgate.access"):
            await Client("GET", "/v1/models").ask(scripted.app)
        assert caplog.messages == []

    async def test_unknown_endpoint_names_do_not_become_metric_labels(
        self, scripted: ScriptedGateway
    ) -> None:
        message = {"type": "http.request", "body": b'{"model":"made-up","input":"a"}', "more_body": False}
        await Client("POST", "/v1/embeddings", messages=[message]).ask(scripted.app)
        for method, path in (
            ("POST", "/_inference/made-up"),
            ("GET", "/_inference/made-up"),
            ("POST", "/hf/made-up/embed"),
            ("GET", "/hf/made-up/info"),
            ("GET", "/v1/models/made-up"),
            ("GET", "/api/endpoints/made-up"),
            ("GET", "/made-up"),
        ):
            await Client(method, path).ask(scripted.app)
        exposed = "".join(scripted.meter.lines())
        assert "made-up" not in exposed
        assert 'hubgate_requests_total{cause="not_found",endpoint="",face="own"} 1.0' in exposed


OPEN = {(method, path) for method in ("GET", "HEAD") for path in ("/healthz", "/readyz", "/v1/cluster/auth")}


class TestKeys:
    async def test_every_route_requires_a_key_except_probes_and_console(
        self, scripted: ScriptedGateway
    ) -> None:
        routes = [r for r in scripted.app._app.routes if not r.path.startswith("/ui")]  # type: ignore[attr-defined]
        served = {
            (method, re.sub(r"\{\w+(:path)?\}", "e5", route.path) or "/")
            for route in routes
            for method in (route.methods or () if isinstance(route, Route) else ["POST"])
        }
        assert served > OPEN | {("POST", "/"), ("POST", "/hf/e5/embed"), ("POST", "/_inference/e5/_stream")}
        for method, path in sorted(served | {("GET", "/healthz/"), ("GET", "//"), ("OPTIONS", "/")}):
            asked = await Client(method, path, key=None).ask(scripted.app)
            assert (asked.status == 401) == ((method, path) not in OPEN), (method, path)

    async def test_root_without_a_key_is_open_to_browsers_only(self, scripted: ScriptedGateway) -> None:
        html = {"accept": "text/html,application/xhtml+xml"}
        page = await Client("GET", "/", headers=html, key=None).ask(scripted.app)
        assert page.headers["location"] == "/ui"
        for method, headers in (("GET", {}), ("HEAD", html), ("POST", html)):
            assert (await Client(method, "/", headers=headers, key=None).ask(scripted.app)).status == 401

    @pytest.mark.parametrize(
        "path", [f"/k/{KEY}/v1/models", f"//k/{KEY}//v1/models", f"/k/wrong/k/{KEY}/v1/models"]
    )
    async def test_key_in_the_path_authenticates_when_enabled_and_is_not_logged(
        self, scripted: ScriptedGateway, lines: list[str], path: str
    ) -> None:
        _, plain = await scripted.access.create("app")
        asked = await Client("GET", path.replace(KEY, plain), key=None).ask(scripted.app)
        assert asked.status == (404 if path.startswith("//") else 200)
        assert plain not in lines[0] + asked.body
        assert plain.encode() not in asked.scope["raw_path"]

    @pytest.mark.parametrize(
        "path",
        [
            f"/k/{KEY}/v1/models",
            "/k/operators-own-key/v1/models",
            "//k//operators-own-key",
            "/k/operators-own-key\n/v1",
            "/k/a/k/operators-own-key/v1",
            f"/hf/{KEY}/embed",
            f"/v1/models/{KEY}",
            "/hf/hf_aTokenOfHuggingFace12345678901234/embed",
        ],
    )
    @pytest.mark.parametrize("key", [ADMIN_KEY, None])
    async def test_key_in_the_path_is_redacted_from_log_and_errors_when_disabled(
        self, scripted: ScriptedGateway, lines: list[str], path: str, key: str | None
    ) -> None:
        asked = await Client("GET", path, key=key).ask(without_keys_in_path(scripted))
        assert asked.status in ((404, 405) if key else (401,))
        for secret in (KEY, "operators-own-key", "aTokenOfHuggingFace"):
            assert secret not in lines[0] + asked.body

    async def test_endpoint_name_can_start_like_a_token(self, scripted: ScriptedGateway) -> None:
        name = "hf_multilingual-e5-large-instruct"
        added = await scripted.request("POST", "/api/endpoints", {"name": name, "source": "fake"})
        assert added.status == 201
        assert (await scripted.request("GET", f"/hf/{name}/info")).status == 200

    @pytest.mark.parametrize("path", ["/k/", "/k//", "/k//v1/models", "/k/wrong"])
    async def test_missing_or_wrong_key_in_the_path_is_a_401(
        self, scripted: ScriptedGateway, path: str
    ) -> None:
        assert (await Client("GET", path, key=None).ask(scripted.app)).status == 401


class TestWrongKeys:
    FACES = ("/v1/models", "/_inference/_all", "/hf/e5/info", "/api/keys", "/metrics", "/k/wrong/v1/models")

    @pytest.mark.parametrize("path", FACES)
    async def test_too_many_wrong_keys_are_a_429_and_a_valid_key_still_works(
        self, scripted: ScriptedGateway, path: str
    ) -> None:
        for _ in range(MAX_WRONG_KEYS):
            assert (await Client("GET", path, key="wrong").ask(scripted.app)).status == 401
        asked = await Client("GET", path, key="wrong").ask(scripted.app)
        assert asked.status == 429
        assert 0 < int(asked.headers["retry-after"]) <= 60
        assert asked.headers["x-should-retry"] == "false"
        assert "A valid key is accepted at once." in asked.body
        assert (await Client("GET", "/api/keys").ask(scripted.app)).status == 200

    async def test_requests_without_a_key_are_always_a_401(self, scripted: ScriptedGateway) -> None:
        for _ in range(MAX_WRONG_KEYS + 5):
            assert (await Client("GET", "/v1/models", key=None).ask(scripted.app)).status == 401

    async def test_access_log_has_the_address_and_id_of_a_rejected_key(
        self, scripted: ScriptedGateway, lines: list[str]
    ) -> None:
        for key in (KEY, "no-key-of-ours"):
            asked = Client("GET", "/v1/models", key=key)
            asked.scope["client"] = ("192.0.2.7", 50_000)
            await asked.ask(scripted.app)
        assert " client=192.0.2.7 key=refused:0123abcd " in lines[0]
        assert " client=192.0.2.7 key=- " in lines[1]
        form = {"type": "http.request", "body": f"key={KEY}".encode(), "more_body": False}
        await Client("POST", "/ui/sign-in", messages=[form], key=None).ask(scripted.app)
        assert "POST /ui/sign-in 401 " in lines[2]
        assert lines[2].endswith("key=refused:0123abcd endpoint=- texts=0 cause=not_authenticated")


DIALECTS = {
    "/_inference/x/y/z": "elastic",
    "//": "elastic",
    "/v1/nothing": "openai",
    "/v1/embed": "cohere",
    "/v1/chat/": "cohere",
    "/v2/nothing": "cohere",
    "/v1/chat/nothing": "openai",
    "/chat/completions": "openai",
    "/hf/e5/v1/embeddings/": "openai",
    "/hf/e5/nothing": "huggingface",
    "/hf/e5/v1/nothing": "huggingface",
    "/k/": "huggingface",
    "/api/nothing": "own",
    "/nothing": "own",
    "/%2e%2e/etc/passwd": "own",
    "/../../etc/passwd": "own",
    "*": "elastic",
    "": "elastic",
    "/\ufffd": "own",
    "/\x00": "own",
}


def dialect_of(body: Any) -> str:
    if set(body) == {"message", "code"}:
        return "cohere"
    error = body["error"]
    if isinstance(error, str):
        assert set(body) == {"error", "error_type"}
        return "huggingface"
    if "root_cause" in error:
        assert set(body) == {"error", "status"}
        return "elastic"
    return {"cause": "own", "code": "openai"}[next(word for word in ("cause", "code") if word in error)]


class TestPaths:
    @pytest.mark.parametrize("path", DIALECTS)
    async def test_unknown_path_gets_the_error_dialect_of_its_prefix(
        self, scripted: ScriptedGateway, path: str
    ) -> None:
        app = without_keys_in_path(scripted)
        asked = await Client("PATCH", path).ask(app)
        assert asked.status in (404, 405)
        assert dialect_of(json.loads(asked.body)) == DIALECTS[path]

    @pytest.mark.parametrize(
        "path", ["/_inference/text_embedding/no", "/v1/embeddings", "/hf/no/embed", "/api/endpoints/no"]
    )
    async def test_every_dialect_has_the_same_cause_header(
        self, scripted: ScriptedGateway, path: str
    ) -> None:
        body = {"model": "no", "input": "a"} if path.startswith("/v1") else None
        refused = await scripted.request("DELETE" if path.startswith("/api") else "POST", path, body)
        assert (refused.status, refused.headers["x-hubgate-cause"]) == (404, "endpoint_not_found")

    @pytest.mark.parametrize(
        "path", ["/hf//embed", "/hf/", "//embed", "/_inference/", "/_inference//_stream"]
    )
    async def test_empty_endpoint_name_in_the_path_is_not_found(
        self, scripted: ScriptedGateway, path: str
    ) -> None:
        _, key = await scripted.access.create("app", default_endpoint="e5")
        message = {"type": "http.request", "body": b'{"inputs":"a"}', "more_body": False}
        asked = await Client("POST", path, messages=[message], key=key).ask(scripted.app)
        assert asked.status in (404, 405)
        assert scripted.script.calls == []

    @pytest.mark.parametrize("path", ["/v1/models/", "/_inference/e5/", "/hf/e5/info//"])
    async def test_trailing_slashes_are_ignored(self, scripted: ScriptedGateway, path: str) -> None:
        assert (await Client("GET", path).ask(scripted.app)).status == 200

    async def test_options_lists_the_allowed_methods(self, scripted: ScriptedGateway) -> None:
        for path, allowed in (
            ("/v1/embeddings", "POST"),
            ("/_inference/e5", "DELETE, GET, HEAD, POST, PUT"),
            ("/", "GET, HEAD, POST"),
        ):
            asked = await Client("OPTIONS", path).ask(scripted.app)
            assert (asked.status, asked.headers["allow"]) == (405, allowed)

    async def test_the_allowed_methods_of_every_path_are_those_of_its_own_route(
        self, scripted: ScriptedGateway
    ) -> None:
        """Not those of a route whose parameter matches, too: `/api/jobs/estimate` is no id of a job."""
        served: dict[str, set[str]] = {}
        for route in scripted.app._app.routes:  # type: ignore[attr-defined]
            methods = (route.methods or ()) if isinstance(route, Route) else ["POST"]
            served.setdefault(route.path or "/", set()).update(methods)
        assert served["/api/jobs/estimate"] == {"POST"}
        for path, methods in served.items():
            for method in ("OPTIONS", "TRACE"):
                asked = await Client(method, re.sub(r"\{\w+(:path)?\}", "e5", path)).ask(scripted.app)
                assert (asked.status, asked.headers["allow"]) == (405, ", ".join(sorted(methods))), path

    async def test_head_is_served_wherever_get_is(self, scripted: ScriptedGateway) -> None:
        assert (await Client("HEAD", "/").ask(scripted.app)).status == 200
        assert (await Client("HEAD", "/_inference/e5").ask(scripted.app)).status == 200

    async def test_websocket_is_closed_before_it_opens(self, scripted: ScriptedGateway) -> None:
        client = Client("GET", "/v1/embeddings")
        client.scope["type"] = "websocket"
        await client.ask(scripted.app)
        assert client.sent == [{"type": "websocket.close"}]

    async def test_lifespan_is_not_supported(self, scripted: ScriptedGateway) -> None:
        client = Client("GET", "/")
        client.scope["type"] = "lifespan"
        with pytest.raises(NotImplementedError, match="lifespan"):
            await client.ask(scripted.app)


class TestBody:
    @staticmethod
    async def _read_all(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    @pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413)])
    async def test_body_limit_applies_to_the_content_length(
        self, scripted: ScriptedGateway, size: int, status: int
    ) -> None:
        asked = Client("POST", "/v1/embeddings", headers={"content-length": str(size)})
        await asked.ask(guarded(scripted, self._read_all))
        assert asked.status == status

    @pytest.mark.parametrize(("parts", "status"), [(10, 200), (11, 413)])
    async def test_body_limit_applies_to_a_chunked_body(
        self, scripted: ScriptedGateway, parts: int, status: int
    ) -> None:
        messages = [{"type": "http.request", "body": b"x" * 100, "more_body": True}] * (parts - 1)
        messages.append({"type": "http.request", "body": b"x" * 100, "more_body": False})
        asked = Client("POST", "/v1/embeddings", messages=messages)
        await asked.ask(guarded(scripted, self._read_all))
        assert asked.status == status

    async def test_missing_key_is_reported_before_the_body_size(self, scripted: ScriptedGateway) -> None:
        asked = Client("POST", "/v1/embeddings", headers={"content-length": "99999"}, key=None)
        assert (await asked.ask(guarded(scripted, self._read_all))).status == 401

    @pytest.mark.parametrize("path", ["/ui/sign-in", "/ui/preferences"])
    @pytest.mark.parametrize("announced", [True, False])
    async def test_unauthenticated_body_is_limited_to_a_few_kib(
        self, scripted: ScriptedGateway, path: str, *, announced: bool
    ) -> None:
        part = {"type": "http.request", "body": b"x" * 4096, "more_body": True}
        headers = {"content-length": "4000000"} if announced else {}
        asked = Client("POST", path, headers=headers, messages=[part] * 10, key=None)
        await asked.ask(scripted.app)
        assert asked.status == 413
        assert "larger than 8192 bytes" in asked.body
        assert len(asked._messages) == (10 if announced else 7)

    async def test_large_bodies_share_a_limit_that_ignores_small_ones(
        self, scripted: ScriptedGateway
    ) -> None:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def hold(scope: Scope, receive: Receive, send: Send) -> None:
            await self._read_all(scope, receive, send)
            if scope["path"] == "/v1/first":
                entered.set()
                await leave.wait()

        app = Guard(
            hold,
            FACES,
            scripted.access,
            scripted.meter,
            visible=scripted.service.visible,
            max_body_bytes=200_000,
            max_total_body_bytes=200_000,
            keys_in_path=False,
        )

        def large(path: str, *, announced: bool) -> Client:
            part = {"type": "http.request", "body": b"x" * 50_000, "more_body": True}
            headers = {"content-length": "100000"} if announced else {}
            messages = [part, part, {"type": "http.request", "body": b"", "more_body": False}]
            return Client("POST", path, headers=headers, messages=messages)

        first = asyncio.create_task(large("/v1/first", announced=False).ask(app))
        await entered.wait()
        assert (await large("/v1/second", announced=True).ask(app)).status == 200
        refused = await Client("POST", "/v1/x", headers={"content-length": "100001"}).ask(app)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.headers["x-hubgate-cause"] == "gate_busy"
        assert "HUBGATE_MAX_TOTAL_BODY_BYTES" in json.loads(refused.body)["error"]["message"]
        small = {"type": "http.request", "body": b"x" * 60_000, "more_body": False}
        assert (await Client("POST", "/v1/small", messages=[small]).ask(app)).status == 200
        leave.set()
        await first
        assert (await Client("POST", "/v1/x", headers={"content-length": "200000"}).ask(app)).status == 200

    @pytest.mark.parametrize(("fault", "status"), [(BROKEN, 400), (SLOW, 408)])
    @pytest.mark.parametrize(
        "path", ["/v1/embeddings", "/hf/e5", "/_inference/e5", "/api/keys", "/ui/sign-in"]
    )
    async def test_incomplete_body_is_an_error_in_the_dialect_of_the_face(
        self, scripted: ScriptedGateway, path: str, fault: str, status: int
    ) -> None:
        asked = Client("POST", path, messages=[{"type": "http.request", "body": b"{", "more_body": False}])
        asked.scope[FAULT] = fault
        await asked.ask(scripted.app)
        assert asked.status == status
        dialect = {"/v1/embeddings": "openai", "/hf/e5": "huggingface", "/_inference/e5": "elastic"}
        if path == "/ui/sign-in":
            assert "<html" in asked.body
        else:
            assert dialect_of(json.loads(asked.body)) == dialect.get(path, "own")

    @pytest.mark.parametrize(
        ("path", "status", "dialect"),
        [
            ("/v1/models", 503, "openai"),
            ("/_inference/_all", 503, "elastic"),
            ("/hf/e5/info", 429, "huggingface"),  # its clients repeat a 503 at once and without end
            ("/api/keys", 503, "own"),
            ("/healthz", 200, ""),
            ("/readyz", 200, ""),
        ],
    )
    async def test_connection_limit_is_an_error_in_the_dialect_of_the_face(
        self, scripted: ScriptedGateway, path: str, status: int, dialect: str
    ) -> None:
        asked = Client("GET", path, key=None)
        asked.scope[EXCESS] = True
        await asked.ask(scripted.app)
        assert asked.status == status
        if dialect:
            assert asked.headers["retry-after"] == "1"
            assert dialect_of(json.loads(asked.body)) == dialect
            assert "maximum number of connections is reached" in asked.body

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/v1/embeddings"),
            ("PUT", "/_inference/new"),
            ("POST", "/api/keys"),
            ("POST", "/ui/sign-in"),
            ("POST", "/ui/preferences"),
        ],
    )
    async def test_disconnect_during_the_body_is_logged_as_client_left(
        self, scripted: ScriptedGateway, lines: list[str], method: str, path: str
    ) -> None:
        half = {"type": "http.request", "body": b'{"na', "more_body": True}
        asked = await Client(method, path, messages=[half, GONE]).ask(scripted.app)
        assert asked.sent == []
        assert len(lines) == 1
        assert lines[0].endswith("cause=client_left")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/embeddings"), ("POST", "/hf/e5/v1/embeddings"), ("POST", "/hf/e5")]
)
async def test_deeply_nested_body_is_a_client_error(
    scripted: ScriptedGateway, method: str, path: str
) -> None:
    reply = await scripted.request(method, path, b'{"user":' + b"[" * 100_000)
    assert reply.status in (400, 422)
    assert "nested too deeply" in reply.body.decode()


CALLS = [
    ("POST", "/v1/embeddings", {"model": "e5", "input": "a"}),
    ("POST", "/hf/e5", {"inputs": "a"}),
    ("POST", "/hf/e5/v1/embeddings", {"input": "a"}),
    ("POST", "/_inference/e5", {"input": "a"}),
]


class TestMistakes:
    @pytest.mark.parametrize(("method", "path", "body"), CALLS)
    async def test_exception_is_a_500_with_the_request_id_and_a_logged_traceback(
        self,
        scripted: ScriptedGateway,
        caplog: pytest.LogCaptureFixture,
        method: str,
        path: str,
        body: object,
    ) -> None:
        scripted.script.answer = raising(ZeroDivisionError("a detail of the inside"))
        reply = await scripted.request(method, path, body)
        assert reply.status == 500
        text = reply.body.decode()
        assert "Internal error." in text
        assert reply.headers["x-request-id"] in text
        assert "ZeroDivisionError" not in text
        assert "a detail of the inside" not in text
        assert f"request {reply.headers['x-request-id']} failed" in caplog.text
        assert "ZeroDivisionError: a detail of the inside" in caplog.text

    async def test_exception_in_hubgates_own_api_is_a_500(self, scripted: ScriptedGateway) -> None:
        async def fail(scope: Scope, receive: Receive, send: Send) -> None:
            raise ZeroDivisionError

        asked = await Client("GET", "/api/about").ask(guarded(scripted, fail))
        assert asked.status == 500
        assert '"cause":"internal"' in asked.body

    @pytest.mark.parametrize("error", [ZeroDivisionError(), InvalidRequest("Too late to say.")])
    async def test_failure_after_the_response_started_sends_nothing_more(
        self, scripted: ScriptedGateway, lines: list[str], error: Exception
    ) -> None:
        async def fail(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200})
            raise error

        asked = await Client("GET", "/api/about").ask(guarded(scripted, fail))
        assert len(asked.sent) == 1
        assert " 200 " in lines[-1]
        assert "cause=ok" not in lines[-1]


class TestLeaving:
    async def test_client_disconnect_cancels_the_request(
        self, scripted: ScriptedGateway, lines: list[str]
    ) -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def work(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        client = Client("POST", "/v1/embeddings")
        asking = asyncio.create_task(client.ask(guarded(scripted, work)))
        await began.wait()
        client.leave()
        await asking
        assert ended.is_set()
        assert client.sent == []
        assert lines[0].endswith("cause=client_left")
        exposed = "".join(scripted.meter.lines())
        assert 'hubgate_requests_total{cause="client_left",endpoint="",face="openai"} 1.0' in exposed
        assert "hubgate_requests_in_flight 0.0" in exposed

    async def test_disconnect_watch_starts_after_the_body_is_read(self, scripted: ScriptedGateway) -> None:
        """A request has one reader: a second one would take parts of the body from the first."""
        parts = asyncio.Queue[dict[str, Any]]()

        async def work(scope: Scope, receive: Receive, send: Send) -> None:
            body = b""
            while (message := await receive()).get("more_body"):
                body += message["body"]
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": body + message["body"]})

        client = Client("POST", "/v1/embeddings")
        readers = 0

        async def receive() -> Message:
            nonlocal readers
            readers += 1
            assert readers == 1
            message = await parts.get()
            readers -= 1
            return message

        client.receive = receive  # type: ignore[method-assign]
        asking = asyncio.create_task(client.ask(guarded(scripted, work)))
        loop = asyncio.get_running_loop()
        for part in (b"a", b"b"):
            later = loop.create_future()
            loop.call_later(0.05, later.set_result, None)  # beyond the time after which a client is watched
            await later
            await parts.put({"type": "http.request", "body": part, "more_body": True})
        await parts.put({"type": "http.request", "body": b"c", "more_body": False})
        await asking
        assert client.body == "abc"

    async def test_request_cancelled_by_shutdown_gets_503(self, scripted: ScriptedGateway) -> None:
        began = asyncio.Event()

        async def work(scope: Scope, receive: Receive, send: Send) -> None:
            began.set()
            await asyncio.Event().wait()

        client = Client("GET", "/api/about")
        asking = asyncio.create_task(client.ask(guarded(scripted, work)))
        await began.wait()
        asking.cancel()
        await asking
        assert client.status == 503
        assert '"cause":"gate_stopping"' in client.body

    async def test_shutdown_during_a_client_disconnect_completes(self, scripted: ScriptedGateway) -> None:
        began, left = asyncio.Event(), asyncio.Event()

        async def work(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                left.set()
                await asyncio.Event().wait()  # something that has to come to its end

        client = Client("GET", "/api/about")
        asking = asyncio.create_task(client.ask(guarded(scripted, work)))
        await began.wait()
        client.leave()
        await left.wait()
        asking.cancel()
        await asking
        assert '"cause":"gate_stopping"' in client.body


class TestCacheControl:
    @pytest.mark.parametrize("face", CALLS, ids=lambda face: face[1])
    @pytest.mark.parametrize(
        ("header", "cached"),
        [(None, True), ("max-age=0", True), ("no-cache", False), ("max-age=0, No-Store", False)],
    )
    async def test_cache_control_bypasses_the_vector_cache_on_every_face(
        self, scripted: ScriptedGateway, face: tuple[str, str, object], header: str | None, *, cached: bool
    ) -> None:
        method, path, body = face
        message = {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
        headers = {"cache-control": header} if header else {}
        asked = await Client(method, path, headers=headers, messages=[message]).ask(scripted.app)
        assert asked.status == 200
        call = scripted.script.calls[-1]
        assert isinstance(call, Embed)
        assert call.cached is cached
