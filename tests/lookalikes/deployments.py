"""The API for managing Inference Endpoints, as `spec/huggingface.md` 3 has it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer
from lookalikes.site import Seen, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "hf_mayManageEndpoints"


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
    """The endpoints of `acme` and the actions on them, below `/v2`."""

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[str, list[dict[str, Any]]] = {"acme": []}

    def reply(self, seen: Seen) -> Answer:
        """The reply without a fault."""
        if seen.token is None:
            return Answer(401, {"error": "Unauthorized"})
        version, kind, namespace, *rest = seen.path.strip("/").split("/")
        if (version, kind) != ("v2", "endpoint") or namespace not in self.items:
            return Answer(404, {"error": "Not Found"})
        items = self.items[namespace]
        if not rest:
            return Answer(200, {"items": items})
        item = next((item for item in items if item["name"] == rest[0]), None)
        if item is None:
            return Answer(404, {"error": f"Endpoint {rest[0]} not found"})
        if seen.method == "POST" and rest[1:] == ["resume"]:
            if item["status"]["state"] != "paused":
                return Answer(400, {"error": "Bad Request: Endpoint is already running"})
            item["status"]["state"] = "initializing"
        return Answer(200, item)


@contextmanager
def running_deployments() -> Iterator[DeploymentsApi]:
    """A running API."""
    site = DeploymentsApi()
    with site.running():
        yield site
