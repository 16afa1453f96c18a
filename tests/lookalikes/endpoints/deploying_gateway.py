"""A gateway that may create Inference Endpoints at look-alikes of Hugging Face's APIs."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from running_gateway import RunningGateway, eventually

from hubgate.settings import Settings
from lookalikes import lookalike
from lookalikes.deployments import DeploymentsApi, running_deployments
from lookalikes.endpoints.world import E5
from lookalikes.hub_api import MANAGER_TOKEN, running_hub_api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STAYS_UP = {"min_replicas": 1, "zero_after": None}
FORM: dict[str, Any] = {"model": E5, "instance": "intel-spr/x2", "region": "us-east-1", **STAYS_UP}


def at_once() -> float:
    """A clock on which every Inference Endpoint is ready at the next look."""
    return time.monotonic() * 1e6


@contextmanager
def deploying_site(clock: Callable[[], float] | None = None) -> Iterator[DeploymentsApi]:
    """The API of Inference Endpoints, and a server for those that run `E5`."""
    with running_deployments(clock) as site, lookalike("tei", name=E5) as tei:
        site.servers[E5] = tei.url
        yield site


@contextmanager
def deploying_gateway(folder: Path, site: DeploymentsApi, **settings: Any) -> Iterator[RunningGateway]:
    """A gateway whose connection `hf` may manage Inference Endpoints. It goes on with what is in the folder."""
    with running_hub_api() as hub:
        whole = Settings(
            home=folder / "home",
            secret_key_file=folder / "config" / "secret.key",
            port=0,
            hf_endpoint=hub.url,
            endpoints_api_url=f"{site.url}/v2",
            endpoints_catalog_url=f"{site.url}/api/v1/catalog",
            **settings,
        )
        is_new = not whole.home.exists()
        with RunningGateway(whole) as gateway:
            if is_new:
                body = {"name": "hf", "token": MANAGER_TOKEN, "hosts": ["huggingface", site.url]}
                assert gateway.request("POST", "/api/connections", body).status == 201
            yield gateway


def deploy(gateway: RunningGateway, name: str, stage: str = "registered", **changes: Any) -> None:
    """Plan and create an Inference Endpoint, and wait until it is at a stage."""
    form = {**FORM, "name": name, **changes}
    plan = gateway.request("POST", "/api/deployments/plan", form).json()
    created = gateway.request("POST", "/api/deployments", {**form, "confirm": plan["confirm"]})
    assert created.status == 202, created.body
    path = f"/api/deployments/acme/{name}"
    eventually(lambda: gateway.request("GET", path).json()["stage"] == stage)
