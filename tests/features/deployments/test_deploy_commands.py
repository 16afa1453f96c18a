"""`hubgate deploy`: from a plan to a registered endpoint, and its verbs, through a running gateway."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from lookalikes import lookalike
from lookalikes.deployments import running_deployments
from lookalikes.endpoints.world import E5
from lookalikes.hub_api import MANAGER_TOKEN
from running_gateway import RunningGateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from commands import Command
    from lookalikes.deployments import DeploymentsApi
    from lookalikes.hub_api import HubApi

    from hubgate.settings import Settings

WANTED = ("--instance", "intel-spr/x2", "--region", "us-east-1", "--min", "1", "--zero-after", "0")
CREATE = ("deploy", "create", "e5", E5, *WANTED)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[DeploymentsApi]:
    """With endpoints that run at once, unless the parameter is a slower speed of their clock."""
    speed = getattr(request, "param", 1e6)
    with (
        running_deployments(lambda: time.monotonic() * speed) as site,
        lookalike("tei", name=E5) as tei,
    ):
        site.servers[E5] = tei.url
        yield site


@pytest.fixture
def gateway(settings: Settings, hub_site: HubApi, site: DeploymentsApi) -> Iterator[RunningGateway]:
    settings = replace(
        settings,
        hf_endpoint=hub_site.url,
        endpoints_api_url=f"{site.url}/v2",
        endpoints_catalog_url=f"{site.url}/api/v1/catalog",
    )
    with RunningGateway(settings) as running:
        hosts = ["huggingface", site.url]
        body = {"name": "hf", "token": MANAGER_TOKEN, "hosts": hosts}
        assert running.request("POST", "/api/connections", body).status == 201
        yield running


def test_hardware_and_a_plan_are_shown_and_create_nothing(
    gateway: RunningGateway, site: DeploymentsApi, hubgate: Command
) -> None:
    found = hubgate("deploy", "hardware", "--vendor", "aws", "--accelerator", "gpu", "--max-price", "0.6")
    assert {row[0] for row in found.rows} == {"nvidia-t4/x1"}
    plan = hubgate("deploy", "plan", E5, *WANTED)
    assert plan.status == 0, plan.err
    assert "$0.067 an hour, $1.61 a day, $48.91 in 730 hours" in plan.out
    assert '"url": "ghcr.io/huggingface/text-embeddings-inference:cpu-1.9"' in plan.out
    everything = hubgate("deploy", "plan", E5)
    assert "no: " in everything.out
    dry = hubgate(*CREATE, "--dry-run")
    assert (dry.status, "at most  $0.067" in dry.out) == (0, True)
    assert {seen.method for seen in site.asked} == {"GET"}


def test_creating_needs_the_price_and_ends_in_a_registered_endpoint(
    gateway: RunningGateway, site: DeploymentsApi, hubgate: Command
) -> None:
    unconfirmed = hubgate(*CREATE)
    assert (unconfirmed.status, "--confirm-price" in unconfirmed.err) == (1, True)
    cheap = hubgate(*CREATE, "--confirm-price", "0.06")
    assert (cheap.status, "at most $0.067 an hour" in cheap.err) == (1, True)
    assert site.hosted == {}
    created = hubgate(*CREATE, "--confirm-price", "0.067", "--no-wait")
    assert created.status == 0, created.err
    waited = hubgate("deploy", "wait", "e5")
    assert (waited.status, "Registered e5" in waited.out) == (0, True), waited.err
    texts = {"model": "e5", "input": ["one"]}
    assert gateway.request("POST", "/v1/embeddings", texts).status == 200
    assert hubgate("deploy", "show", "e5").fields["stage"] == "registered"
    listed = hubgate("deploy", "list")
    assert ["e5", "acme", "running", "registered"] in [row[:4] for row in listed.rows]
    assert "Now $0.067 an hour" in listed.out


def test_verbs_show_what_they_change_of_the_costs(
    gateway: RunningGateway, site: DeploymentsApi, hubgate: Command
) -> None:
    assert hubgate(*CREATE, "--confirm-price", "1").status == 0
    dry = hubgate("deploy", "pause", "e5", "--dry-run")
    assert dry.out.startswith("Would pause acme/e5: at most $0.067 an hour before, $0 after.")
    assert hubgate("deploy", "zero", "e5").status == 0
    assert hubgate("deploy", "pause", "e5", "--namespace", "acme", "--connection", "hf").status == 0
    assert hubgate("deploy", "resume", "e5").status == 1
    assert hubgate("deploy", "resume", "e5", "--confirm-price", "0.067").status == 0
    more = ("deploy", "edit", "e5", "--max", "2", "--env", "LOG=debug")
    assert '"maxReplica": 2' in hubgate(*more, "--dry-run").out
    assert hubgate(*more).status == 1
    assert hubgate(*more, "--confirm-price", "0.134").status == 0
    assert site.one("e5").body["compute"]["scaling"]["maxReplica"] == 2
    assert hubgate("deploy", "edit", "e5", "--env", "LOG").status == 1
    used = hubgate("deploy", "delete", "e5", "--confirm", "e5")
    assert (used.status, "used by e5" in used.err) == (1, True)
    assert "Would delete" in hubgate("deploy", "delete", "e5", "--dry-run").out
    assert hubgate("deploy", "delete", "e5", "--force").status == 1
    assert hubgate("deploy", "delete", "e5", "--force", "--confirm", "e5").status == 0
    assert site.hosted == {}


def test_secrets_come_from_the_environment(
    gateway: RunningGateway, site: DeploymentsApi, hubgate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--secret-env", "MY_KEY", "--image", "me/tei:1", "--registry-username", "me"]
    options += ["--registry-password-env", "MY_PASSWORD", "--type", "authenticated", "--register", "mine"]
    assert "MY_" in hubgate("deploy", "plan", E5, *options).err
    monkeypatch.setenv("MY_KEY", "a-secret-value")
    monkeypatch.setenv("MY_PASSWORD", "registry-password")
    plan = hubgate("deploy", "plan", E5, "--name", "mine", *options)
    assert plan.status == 0, plan.err
    assert "a-secret-value" not in plan.out
    assert '"password": "***"' in plan.out
    assert hubgate(*CREATE, *options, "--confirm-price", "1").status == 0
    assert site.one("e5").body["model"]["secrets"] == {"MY_KEY": "a-secret-value"}
    site.ends_in["bad"] = "failed"
    bad = hubgate("deploy", "create", "bad", E5, *WANTED, "--confirm-price", "1", "--or-delete")
    assert (bad.status, "It was deleted." in bad.err) == (1, True)


@pytest.mark.parametrize("site", [1e3], indirect=True)
def test_a_job_says_before_it_starts_what_it_will_wake(
    gateway: RunningGateway, site: DeploymentsApi, hubgate: Command, tmp_path: Path
) -> None:
    scaling = ("--min", "0", "--max", "2", "--zero-after", "10080")
    assert hubgate(*CREATE[:4], *WANTED[:4], *scaling, "--confirm-price", "1").status == 0
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "one"}\n')
    estimate = ("job", "estimate", str(source), "--endpoint", "e5")
    run = ("job", "run", str(source), str(out), "--endpoint", "e5")
    assert "will wake" not in hubgate(*estimate).fields
    assert json.loads(hubgate(*estimate, "--json").out)["wakes"] == []

    assert hubgate("deploy", "zero", "e5").status == 0
    words = "acme/e5, $0.067 an hour, at most $0.134 with all replicas"
    assert hubgate(*estimate).fields["will wake"] == words
    told = {"deployment": "acme/e5", "price_per_hour": 0.067, "dollars_at_most": 0.134}
    assert json.loads(hubgate(*estimate, "--json").out)["wakes"] == [told]
    assert site.one("e5").state == "scaledToZero"
    site.fail("failing", method="GET")
    assert hubgate(*estimate).fields["will wake"] == "unknown: Hugging Face could not be asked"
    site.fail(None)
    woken = hubgate(*run)
    assert (woken.status, woken.err.splitlines()[0]) == (0, f"hubgate: The job will wake {words}.")
    assert site.one("e5").calls > 0

    site.fail("failing", method="GET", only="/v2/")
    unknown = hubgate(*run, "--overwrite")
    site.fail(None)
    assert "Whether the job wakes an Inference Endpoint is unknown." in unknown.err
    assert unknown.status == 0
    again = hubgate(*run, "--overwrite")
    assert (again.status, again.err) == (0, "")
