"""The API for managing Inference Endpoints, its catalogue, and the endpoints that it runs.

Rests on the real client: paths, methods and bodies (huggingface_hub 2.4.0, recorded and read). On documents: what the
modules of `endpoints` name. Guesses: the status of most refusals (a taken name 409, the
quota 400), every message but the one about unknown hardware, and the names of the catalogue's fields beyond those that
the client reads.
"""

from __future__ import annotations

import http.client
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lookalikes.endpoints.bodies import known_fields, merged, refusal_of, unknown_hardware
from lookalikes.endpoints.hardware import (
    HARDWARE,
    MAX_ACCELERATORS,
    Hardware,
    find_hardware,
    provider_reply,
    used_accelerators,
)
from lookalikes.endpoints.hosted import Hosted
from lookalikes.model import Answer
from lookalikes.site import Seen, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOKEN = "hf_mayManageEndpoints"
_ENDINGS = {"pause", "resume", "scale-to-zero"}
_HOP_HEADERS = frozenset({"connection", "content-length", "date", "server", "transfer-encoding"})


def deployment(
    name: str,
    *,
    url: str | None = None,
    state: str = "running",
    repository: str = "intfloat/e5-small-v2",
    image: dict[str, Any] | None = None,
    message: str = "",
) -> dict[str, Any]:
    """One endpoint in the API's format."""
    return {
        "name": name,
        "type": "authenticated",
        "healthRoute": "/health",
        "provider": {"vendor": "aws", "region": "us-east-1"},
        "compute": {
            "accelerator": "cpu",
            "instanceType": "intel-spr",
            "instanceSize": "x2",
            "scaling": {"minReplica": 0, "maxReplica": 1, "scaleToZeroTimeout": 60},
        },
        "model": {
            "repository": repository,
            "revision": "ffb93f3bd4047442299a41ebb6fa998a38507c52",
            "framework": "pytorch",
            "task": "sentence-embeddings",
            "image": {"tei": {"url": "hub/tei:1.9", "port": 80}} if image is None else image,
        },
        "status": {
            "state": state,
            "message": message,
            "url": url,
            "createdAt": "2026-08-01T12:00:00Z",
            "updatedAt": "2026-08-02T12:00:00Z",
        },
    }


class DeploymentsApi(Site):
    """The endpoints of `acme`, below `/v2`; the catalogue below `/api/v1/catalog`.

    `items` are endpoints that stay as they are. Those that clients create follow the clock: `advance` it, or pass
    one. With a server for their model in `servers`, their URL leads through this look-alike to that server, as long as
    they run.

    Args:
        clock: seconds; `None` for a clock that only `advance` moves.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        super().__init__()
        self.items: dict[str, list[dict[str, Any]]] = {"acme": []}
        self.hosted: dict[tuple[str, str], Hosted] = {}
        self.deleted: list[Hosted] = []
        self.hardware: list[Hardware] = list(HARDWARE)
        self.servers: dict[str, str] = {}
        """The URL of the server for a model's repository."""
        self.ends_in: dict[str, str] = {}
        """The state in which endpoints of a name end instead of `running`."""
        self.new_url_after_resume = False
        self.catalogue: list[dict[str, Any]] = []
        self.max_accelerators = dict(MAX_ACCELERATORS)
        self._clock = clock
        self._now = 0.0
        self._lock = threading.RLock()

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._now if self._clock is None else self._clock()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += seconds
            self._settle()

    def one(self, name: str, namespace: str = "acme") -> Hosted:
        """An endpoint that a client created."""
        with self._lock:
            self._settle()
            return self.hosted[namespace, name]

    @property
    def dollars(self) -> float:
        """The bill of everything that ever ran."""
        with self._lock:
            self._settle()
            return sum(hosted.dollars for hosted in (*self.hosted.values(), *self.deleted))

    def change_price(self, vendor: str, instance_type: str, instance_size: str, price: float) -> None:
        """Change the price of new endpoints."""
        for index, row in enumerate(self.hardware):
            if (row.vendor, row.instance_type, row.instance_size) == (vendor, instance_type, instance_size):
                self.hardware[index] = Hardware(**{**row.__dict__, "price": price})

    def reply(self, seen: Seen) -> Answer:
        """The reply without a fault."""
        with self._lock:
            self._settle()
            if seen.path.startswith("/served/"):
                server = self._called(seen)
            else:
                return self._managed(seen)
        return server if isinstance(server, Answer) else _forwarded(seen, server)

    def _managed(self, seen: Seen) -> Answer:
        if seen.token is None:
            return Answer(401, {"error": "Unauthorized"})
        parts = seen.path.strip("/").split("/")
        if parts[:3] == ["api", "v1", "catalog"]:
            return self._catalogue(seen, parts[3:])
        version, kind, namespace, *rest = [*parts, "", ""][: max(len(parts), 3)]
        if version != "v2" or kind not in {"endpoint", "provider"} or namespace not in self.items:
            return Answer(404, {"error": "Not Found"})
        if kind == "provider":
            bodies = self._bodies(namespace)
            return Answer(200, provider_reply(self.hardware, bodies, self.max_accelerators))
        if not rest:
            return self._create(namespace, seen.json) if seen.method == "POST" else self._list(namespace)
        item = next((item for item in self.items[namespace] if item["name"] == rest[0]), None)
        hosted = self.hosted.get((namespace, rest[0]))
        if item is None and hosted is None:
            return Answer(404, {"error": f"Endpoint {rest[0]} not found"})
        if hosted is not None:
            return self._act(namespace, hosted, seen, rest[1:])
        if item and seen.method == "POST" and rest[1:] == ["resume"]:
            if item["status"]["state"] != "paused":
                return Answer(400, {"error": "Bad Request: Endpoint is already running"})
            item["status"]["state"] = "initializing"
        return Answer(200, item)

    def _list(self, namespace: str) -> Answer:
        own = [hosted.item() for (owner, _), hosted in self.hosted.items() if owner == namespace]
        return Answer(200, {"items": [*self.items[namespace], *own]})

    def _create(self, namespace: str, body: Any) -> Answer:
        if not isinstance(body, dict):
            return Answer(422, {"error": "Failed to parse the request body as JSON"})
        body = known_fields(body)
        refusal = refusal_of(body)
        if refusal is not None:
            return refusal
        name = body["name"]
        if (namespace, name) in self.hosted or any(item["name"] == name for item in self.items[namespace]):
            return Answer(409, {"error": f"Conflict: endpoint {name} already exists"})
        row = find_hardware(body, self.hardware)
        refusal = self._refused_hardware(namespace, body, row)
        if refusal is not None or row is None:
            return refusal or unknown_hardware(body)
        hosted = Hosted(
            body,
            now=self.now,
            price=row.price,
            url_of=lambda resumes: self._url(namespace, body["name"], resumes),
            ends_in=self.ends_in.get(name, "running"),
        )
        self.hosted[namespace, name] = hosted
        return Answer(200, hosted.item())

    def _act(self, namespace: str, hosted: Hosted, seen: Seen, rest: list[str]) -> Answer:
        if seen.method == "DELETE" and not rest:
            self.deleted.append(self.hosted.pop((namespace, hosted.body["name"])))
            return Answer(200, {})
        if seen.method == "PUT" and not rest:
            return self._update(namespace, hosted, seen.json)
        if seen.method == "POST" and rest and rest[0] in _ENDINGS:
            return _carried_out(hosted, rest[0])
        if seen.method == "GET" and not rest:
            return Answer(200, hosted.item())
        return Answer(404, {"error": "Not Found"})

    def _update(self, namespace: str, hosted: Hosted, change: Any) -> Answer:
        if not isinstance(change, dict):
            return Answer(422, {"error": "Failed to parse the request body as JSON"})
        body = merged(hosted.body, known_fields(change)) | {"name": hosted.body["name"]}
        refusal = refusal_of(body)
        row = find_hardware(body, self.hardware)
        refusal = refusal or self._refused_hardware(namespace, body, row)
        if refusal is not None or row is None:
            return refusal or unknown_hardware(body)
        hosted.change(body, row.price)
        return Answer(200, hosted.item())

    def _refused_hardware(self, namespace: str, body: dict[str, Any], row: Hardware | None) -> Answer | None:
        if row is None:
            return unknown_hardware(body)
        if row.status == "not_available":
            return Answer(
                400, {"error": f"Instance {row.instance_type} {row.instance_size} is not available"}
            )
        others = [other for other in self._bodies(namespace) if other["name"] != body["name"]]
        used = used_accelerators([*others, body], row.vendor, row.instance_type)
        allowed = self.max_accelerators[row.accelerator]
        if used > allowed:
            return Answer(
                400, {"error": f"Quota exceeded for {row.instance_type}: {used} of {allowed} accelerators"}
            )
        return None

    def _bodies(self, namespace: str) -> list[dict[str, Any]]:
        own = [
            one.body
            for (owner, _), one in self.hosted.items()
            if owner == namespace and one.state != "paused"
        ]
        return own + [item for item in self.items[namespace] if item["status"]["state"] != "paused"]

    def _catalogue(self, seen: Seen, rest: list[str]) -> Answer:
        if rest == ["list"]:
            return Answer(200, {"items": [item for item in self.catalogue if _matches(item, seen)]})
        body = seen.json if isinstance(seen.json, dict) else {}
        if seen.method != "POST" or rest[-1:] != ["deploy"] or rest[:1] not in (["model"], ["recipe"]):
            return Answer(404, {"error": "Not Found"})
        wanted = "/".join(rest[1:-1])
        for item in self.catalogue:
            for recipe in item["recipes"]:
                named = item["repoId"] if rest[0] == "model" else recipe["publicId"]
                if named == wanted and body.get("accelerator") in (None, recipe["accelerator"]):
                    return self._deployed(item, recipe, body)
        return Answer(404, {"error": f"{wanted} is not in the catalog"})

    def _deployed(self, item: dict[str, Any], recipe: dict[str, Any], body: dict[str, Any]) -> Answer:
        kind = {"vllm": "vLLM", "sglang": "sGLang"}.get(recipe["engineType"], recipe["engineType"])
        wanted = deployment(
            body.get("config", {}).get("name", item["modelName"].lower()[:32].strip("-")),
            repository=item["repoId"],
            image={kind: {"url": f"catalog/{recipe['engineType']}:1", "healthRoute": "/health"}},
        )
        wanted["model"]["task"] = item["task"]
        reply = self._create(body["namespace"], wanted)
        return Answer(200, {"endpoint": reply.body}) if reply.status == 200 else reply

    def _url(self, namespace: str, name: str, resumes: int) -> str:
        hosted = self.hosted.get((namespace, name))
        number = resumes if self.new_url_after_resume else 0
        if hosted and hosted.body["model"]["repository"] in self.servers:
            return f"{self.url}/served/{namespace}/{name}/{number}"
        return f"https://{name}{number or ''}.us-east-1.aws.endpoints.huggingface.cloud"

    def _called(self, seen: Seen) -> Answer | str:
        """What a call of an endpoint gets: a reply of the proxy before it, or its server's URL."""
        _, namespace, name, number, *path = seen.path.strip("/").split("/")
        hosted = self.hosted.get((namespace, name))
        if hosted is None or (self.new_url_after_resume and int(number) != hosted.resumes):
            return Answer(404, "Not Found")
        if hosted.body["type"] != "public" and seen.token is None:
            return Answer(401, {"error": "Unauthorized"})
        hosted.call()
        if hosted.state in {"paused", "failed"}:
            return Answer(400, {"error": "Bad Request: Invalid state"})
        if hosted.state not in {"running", "updating", "updateFailed"}:
            return Answer(503, "503 Service Unavailable")
        return "/".join((self.servers[hosted.body["model"]["repository"]], *path))

    def _settle(self) -> None:
        for hosted in self.hosted.values():
            hosted.settle(self.now)


def _carried_out(hosted: Hosted, action: str) -> Answer:
    if action == "resume":
        if hosted.state != "paused":
            return Answer(400, {"error": "Bad Request: Endpoint is already running"})
        hosted.resume()
    elif action == "pause":
        hosted.enter("paused")
    elif hosted.state == "paused":
        return Answer(400, {"error": "Bad Request: Invalid state"})
    else:
        hosted.enter("scaledToZero")
    return Answer(200, hosted.item())


def _forwarded(seen: Seen, server: str) -> Answer:
    parts = urlsplit(server)
    connection = http.client.HTTPConnection(parts.netloc, timeout=240)
    headers = {name: value for name, value in seen.headers.items() if name not in {"host", "connection"}}
    try:
        connection.request(seen.method, parts.path or "/", seen.body, headers)
        reply = connection.getresponse()
        kept = {name: value for name, value in reply.getheaders() if name.lower() not in _HOP_HEADERS}
        return Answer(reply.status, reply.read(), kept)
    except OSError:
        return Answer(502, "502 Bad Gateway")
    finally:
        connection.close()


def _matches(item: dict[str, Any], seen: Seen) -> bool:
    wanted = {name: values[0] for name, values in seen.query.items()}
    recipes = [
        recipe
        for recipe in item["recipes"]
        if wanted.get("engine") in (None, recipe["engineType"])
        and wanted.get("accelerator") in (None, recipe["accelerator"])
    ]
    return (
        bool(recipes)
        and wanted.get("search", "").lower() in item["repoId"].lower()
        and wanted.get("task") in (None, item["task"])
        and wanted.get("license") in (None, item["license"])
    )


def catalogue_item(repository: str, task: str, **recipe: str | None) -> dict[str, Any]:
    """A model of the catalogue with one recipe: `publicId`, `accelerator` and `engineType`."""
    author, _, name = repository.partition("/")
    return {
        "repoId": repository,
        "modelName": name,
        "authorName": author,
        "license": "MIT",
        "task": task,
        "createdAt": "2026-05-01T00:00:00.000Z",
        "recipes": [{"ggufFile": None, "revision": None, **recipe}],
    }


@contextmanager
def running_deployments(clock: Callable[[], float] | None = None) -> Iterator[DeploymentsApi]:
    """A running API."""
    site = DeploymentsApi(clock)
    with site.running():
        yield site
