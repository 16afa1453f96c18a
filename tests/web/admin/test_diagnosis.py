"""Diagnosis of endpoints by a running gateway over real sockets: a row for each cause."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import lookalike
from lookalikes.hub_api import TOKEN, running_hub_api
from running_gateway import RunningGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commands import Command

    from hubgate.settings import Settings


@pytest.fixture
def gateway(settings: Settings) -> Iterator[RunningGateway]:
    with RunningGateway(settings) as running:
        yield running


def diagnosed(gateway: RunningGateway, **form: Any) -> dict[str, Any]:
    """The step that fails."""
    reply = gateway.request("POST", "/api/diagnose", {"name": "x", **form})
    assert reply.status == 200, reply.body
    told = reply.json()
    (failed,) = [step for step in told["steps"] if step["outcome"] == "failed"]
    assert told["well"] is False
    assert failed["message"]
    assert failed["remedy"]
    after = told["steps"][told["steps"].index(failed) + 1 :]
    assert {step["outcome"] for step in after} <= {"skipped"}
    found: dict[str, Any] = failed
    return found


def where(failed: dict[str, Any]) -> tuple[str, str]:
    return failed["step"], failed["cause"]


def test_a_server_that_is_well_passes_every_step_with_its_time(gateway: RunningGateway) -> None:
    with lookalike("tei") as server:
        told = gateway.request("POST", "/api/diagnose", {"name": "x", "url": server.url}).json()
        assert told["well"] is True
        outcomes = {step["step"]: step["outcome"] for step in told["steps"]}
        assert outcomes.pop("tls") == "skipped"
        assert set(outcomes.values()) == {"passed"}
        assert all(step["milliseconds"] >= 0 for step in told["steps"])
        gateway.add("e5", url=server.url)
        assert gateway.request("POST", "/api/endpoints/e5/diagnose").json()["well"] is True


def test_the_steps_come_one_by_one_where_lines_are_asked_for(gateway: RunningGateway) -> None:
    gateway.add("fake")
    reply = gateway.request(
        "POST", "/api/endpoints/fake/diagnose", headers={"accept": "application/x-ndjson"}
    )
    steps = [json.loads(line) for line in reply.body.splitlines()]
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert steps[0]["outcome"] == "skipped"  # a fake model has no address
    assert (steps[-1]["step"], steps[-1]["outcome"]) == ("answer", "passed")


def test_an_address_that_is_none_or_may_not_be_asked_or_is_the_old_one(gateway: RunningGateway) -> None:
    for url, cause in (
        ("https://api-inference.huggingface.co/models/org/name", "old_address"),
        ("http://169.254.169.254/", "address_refused"),
        ("ftp://example", "invalid_endpoint"),
    ):
        assert where(diagnosed(gateway, url=url)) == ("address", cause)


def test_a_name_that_nobody_knows(gateway: RunningGateway) -> None:
    assert where(diagnosed(gateway, url="http://gone.invalid")) == ("dns", "name_not_resolved")


def test_a_local_model_that_cannot_be_downloaded(gateway: RunningGateway) -> None:
    finding = diagnosed(gateway, source="local", model="hubgate-tests/nowhere")
    assert where(finding) == ("model", "download_failed")


def test_a_port_at_which_nobody_listens(gateway: RunningGateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert where(diagnosed(gateway, url=f"http://127.0.0.1:{port}")) == ("tcp", "connection_refused")


def test_tls_where_there_is_none(gateway: RunningGateway) -> None:
    with lookalike("tei") as server:
        assert where(diagnosed(gateway, url=server.url.replace("http:", "https:"))) == ("tls", "tls_failed")


def test_a_token_that_was_not_given(gateway: RunningGateway) -> None:
    with lookalike("tei", key=TOKEN) as server:
        assert where(diagnosed(gateway, url=server.url)) == ("authentication", "token_missing")


@pytest.mark.parametrize(
    ("fault", "step", "cause"),
    [
        ("wrong-token", "authentication", "wrong_token"),
        ("no-scope", "scope", "token_lacks_scope"),
        ("no-right", "scope", "token_lacks_scope"),
        ("no-credit", "scope", "out_of_credit"),
        ("gated", "scope", "gated_model"),
        ("paused", "state", "paused"),
        ("waking-503", "state", "waking"),
        ("waking-502", "state", "waking"),
        ("too-many", "state", "overloaded"),
        ("gone", "answer", "old_address"),  # as an address it was passed
        ("html", "model", "not_an_api"),
        ("redirect", "model", "upstream_redirects"),
    ],
)
def test_what_a_server_may_answer(gateway: RunningGateway, fault: str, step: str, cause: str) -> None:
    with lookalike("tei", fault=fault) as server:
        failed = diagnosed(gateway, url=server.url, token="hf_made_up_token_of_a_test")
        assert where(failed) == (step, cause)
        assert "hf_made_up" not in json.dumps(failed)


def test_a_model_that_does_another_task(gateway: RunningGateway) -> None:
    with lookalike("tei", kind="embedding") as embedder, lookalike("vllm", kind="llm") as writer:
        chat = diagnosed(gateway, url=embedder.url, task="chat_completion")
        assert where(chat) == ("model", "wrong_task")
        assert where(diagnosed(gateway, url=writer.url, task="text_embedding")) == ("model", "wrong_task")
        assert where(diagnosed(gateway, url=embedder.url, task="rerank")) == ("model", "wrong_task")


def test_a_model_that_fails_over_the_question_is_told_of_at_the_answer(gateway: RunningGateway) -> None:
    with lookalike("tei") as server:
        server.fail("failing", method="POST")
        assert where(diagnosed(gateway, url=server.url)) == ("answer", "upstream_failed")


def test_hosted_models_that_nobody_serves_or_nobody_knows(settings: Settings) -> None:
    with running_hub_api() as hub, lookalike("router", key=TOKEN) as router:
        settings = replace(settings, hf_endpoint=hub.url, router_url=router.url)
        with RunningGateway(settings) as gateway:
            for model, step, cause in (
                ("BAAI/bge-m3", "model", "not_served"),
                ("org/unknown", "model", "model_not_found"),
            ):
                failed = diagnosed(gateway, source="router", model=model, token=TOKEN)
                assert where(failed) == (step, cause)


def test_the_command_says_what_fails_and_what_to_do(gateway: RunningGateway, hubgate: Command) -> None:
    with lookalike("tei") as server:
        gateway.add("e5", url=server.url)
        assert hubgate("doctor", "e5").out.endswith("e5 is healthy.\n")
        server.fail("paused")
        told = hubgate("doctor", "e5")
        assert told.status == 1
        assert "state" in told.out
        assert "paused" in told.err
        assert "Resume it" in told.err


def test_a_registration_that_fails_shows_how_far_it_got(gateway: RunningGateway, hubgate: Command) -> None:
    with lookalike("tei", fault="wrong-token") as server:
        told = hubgate("add", "e5", "--url", server.url)
        assert told.status == 1
        assert "authentication" in told.out
        assert "token" in told.err
    assert "authentication" not in hubgate("add", "E5", "--url", "http://127.0.0.1:1").out
