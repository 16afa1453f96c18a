"""The console's Inference Endpoints without a browser: rights, prices, refusals, and what deleting tells."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from console_client import ConsoleClient, FormFields
from lookalikes.endpoints.deploying_gateway import at_once, deploy, deploying_gateway, deploying_site
from lookalikes.hub_api import TOKEN
from running_gateway import RunningGateway, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lookalikes.deployments import DeploymentsApi

    from hubgate.settings import Settings

FORM = {
    "model": "intfloat/e5-small-v2",
    "name": "new",
    "min_replicas": "۱",  # forms accept the digits of any language
    "max_replicas": "1",
    "zero_after": "",
    "hardware": "aws us-east-1 intel-spr/x2",
}
ONE = "/ui/deployments/acme/e5"


@pytest.fixture(scope="module")
def site() -> Iterator[DeploymentsApi]:
    with deploying_site(at_once) as site:
        yield site


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, site: DeploymentsApi) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("deployments")
    with deploying_gateway(folder, site, max_dollars_per_hour=0.15) as gateway:
        deploy(gateway, "e5")
        yield gateway


@pytest.fixture
def console(gateway: RunningGateway, site: DeploymentsApi) -> Iterator[ConsoleClient]:
    console = ConsoleClient(gateway)
    console.sign_in()
    site.asked.clear()
    yield console
    site.change_price("aws", "intel-spr", "x2", 0.067)


def changing(site: DeploymentsApi) -> list[str]:
    return [seen.method for seen in site.asked if seen.method != "GET" and "/v2/" in seen.path]


def test_without_a_token_the_page_says_what_is_missing(settings: Settings) -> None:
    with RunningGateway(settings) as gateway:
        console = ConsoleClient(gateway)
        console.sign_in()
        for path in ("/ui/deployments", "/ui/deployments/new"):
            assert "inference.endpoints.write" in console.get(path).words


def test_token_without_the_right_is_told_before_the_form(
    console: ConsoleClient, gateway: RunningGateway
) -> None:
    body = {"name": "weak", "token": TOKEN}
    assert gateway.request("POST", "/api/connections", body).status == 201
    page = console.get("/ui/deployments/new?model=intfloat/e5-small-v2&connection=weak")
    assert "The token lacks a permission" in page.words
    assert "inference.endpoints.write" in page.words
    assert 'id="deploy-form"' not in page.text
    assert 'id="deploy-form"' in console.get("/ui/deployments/new?connection=hf").text
    gateway.request("DELETE", "/api/connections/weak")


def test_steps_only_read_and_say_what_does_not_fit(console: ConsoleClient, site: DeploymentsApi) -> None:
    query = urlencode({**FORM, "max_replicas": "10", "zero_after": "15"})
    page = console.get(f"/ui/deployments/hardware?{query}")
    assert "Over the quota" in page.words
    assert "the quota allows 4 more replicas" in page.words
    plan = console.get(f"/ui/deployments/plan?{urlencode(FORM)}")
    assert "At most $0.067 an hour" in plan.words
    assert "A month at most $48.91" in plan.words
    assert "&#34;minReplica&#34;: 1" in plan.text
    assert changing(site) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": ""}, "“Model Name” is missing"),
        ({"max_replicas": "many"}, "“Maximum” must be a whole number"),
        ({"hardware": "aws"}, "The form names no hardware"),
        ({"hardware": "aws us-east-1 abacus/x1"}, "Hugging Face offers no hardware"),
        ({"name": "Not valid"}, "cannot be the name of an Inference Endpoint"),
    ],
)
def test_invalid_form_is_shown_again_with_the_error(
    console: ConsoleClient, changes: dict[str, str], words: str
) -> None:
    page = console.get(f"/ui/deployments/plan?{urlencode({**FORM, **changes})}")
    assert words in page.words
    if changes.get("model") != "":
        assert 'value="intfloat/e5-small-v2"' in page.text


def test_price_that_has_changed_has_to_be_confirmed_again(
    console: ConsoleClient, site: DeploymentsApi, gateway: RunningGateway
) -> None:
    plan = FormFields(console.get(f"/ui/deployments/plan?{urlencode(FORM)}").text).sent
    site.change_price("aws", "intel-spr", "x2", 0.068)
    refused = console.post("/ui/deployments/plan", plan)
    assert "The price has changed" in refused.words
    assert "Create it for at most $0.068 an hour" in refused.words
    assert changing(site) == []
    created = console.post("/ui/deployments/plan", FormFields(refused.text).sent)
    assert (created.status, created.headers["location"]) == (303, "/ui/deployments/acme/new?connection=hf")
    path = "/api/deployments/acme/new"
    eventually(lambda: gateway.request("GET", path).json()["stage"] == "registered")
    over = FormFields(console.get(f"/ui/deployments/plan?{urlencode({**FORM, 'name': 'third'})}").text).sent
    assert "Over the hourly limit" in console.post("/ui/deployments/plan", over).words
    gateway.request("DELETE", "/api/deployments/acme/new?confirm=new&force=true")
    gateway.request("DELETE", "/api/endpoints/new")


def test_resuming_shows_and_confirms_its_price(console: ConsoleClient, site: DeploymentsApi) -> None:
    assert console.post(f"{ONE}/pause").status == 303
    detail = console.get(ONE)
    assert "Paused" in detail.words
    assert "applications can call it" not in detail.words
    ask = console.get(f"{ONE}/resume")
    assert "Resume for at most $0.067 an hour" in ask.words
    site.change_price("aws", "intel-spr", "x2", 0.07)
    dearer = console.post(f"{ONE}/resume", FormFields(ask.text).sent)
    assert "The price has changed" in dearer.words
    assert "Resume for at most $0.07 an hour" in dearer.words
    assert site.one("e5").state == "paused"
    assert console.post(f"{ONE}/resume", FormFields(dearer.text).sent).status == 303
    assert site.one("e5").state != "paused"


def test_deleting_says_who_uses_it_and_wants_the_name(console: ConsoleClient, site: DeploymentsApi) -> None:
    ask = console.get(f"{ONE}/delete")
    assert "These models use it e5" in ask.words
    assert "The price is not confirmed" not in ask.words
    for form, words in (
        ({"typed": "e", "force": "on"}, "its name has to be typed"),
        ({"typed": "e5"}, "is used by e5"),
    ):
        assert words in console.post(f"{ONE}/delete", form).words
    assert changing(site) == []


def test_page_is_shown_although_hugging_face_fails(console: ConsoleClient, site: DeploymentsApi) -> None:
    site.fail("failing", method="GET")
    page = console.get("/ui/deployments")
    site.fail(None)
    assert page.status == 200
    assert 'class="alert"' in page.text
    assert console.get("/ui/deployments?namespace=acme").words.count("intfloat/e5-small-v2") == 1


def test_unknown_pages_are_not_found(console: ConsoleClient) -> None:
    assert console.get(f"{ONE}/explode").status == 404
    assert console.get("/ui/deployments/acme/nothing").status == 404
