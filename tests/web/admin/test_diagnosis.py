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
    """The failed step of a diagnosis."""
    reply = gateway.request("POST", "/api/diagnose", {"name": "x", **form})
    assert reply.status == 200, reply.body
    report = reply.json()
    (failed,) = [step for step in report["steps"] if step["outcome"] == "failed"]
    assert report["well"] is False
    assert failed["message"]
    assert failed["remedy"]
    after = report["steps"][report["steps"].index(failed) + 1 :]
    assert {step["outcome"] for step in after} <= {"skipped"}
    found: dict[str, Any] = failed
    return found


def where(failed: dict[str, Any]) -> tuple[str, str]:
    return failed["step"], failed["cause"]


def test_healthy_server_passes_every_step_with_its_duration(gateway: RunningGateway) -> None:
    with lookalike("tei") as server:
        report = gateway.request("POST", "/api/diagnose", {"name": "x", "url": server.url}).json()
        assert report["well"] is True
        outcomes = {step["step"]: step["outcome"] for step in report["steps"]}
        assert outcomes.pop("tls") == "skipped"
        assert set(outcomes.values()) == {"passed"}
        assert all(step["milliseconds"] >= 0 for step in report["steps"])
        gateway.add("e5", url=server.url)
        assert gateway.request("POST", "/api/endpoints/e5/diagnose").json()["well"] is True


def test_steps_are_streamed_as_ndjson_on_request(gateway: RunningGateway) -> None:
    gateway.add("fake")
    reply = gateway.request(
        "POST", "/api/endpoints/fake/diagnose", headers={"accept": "application/x-ndjson"}
    )
    steps = [json.loads(line) for line in reply.body.splitlines()]
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert steps[0]["outcome"] == "skipped"  # a fake model has no address
    assert (steps[-1]["step"], steps[-1]["outcome"]) == ("answer", "passed")


def test_address_step_fails_for_invalid_forbidden_and_legacy_urls(gateway: RunningGateway) -> None:
    for url, cause in (
        ("https://api-inference.huggingface.co/models/org/name", "old_address"),
        ("http://169.254.169.254/", "address_refused"),
        ("ftp://example", "invalid_endpoint"),
    ):
        assert where(diagnosed(gateway, url=url)) == ("address", cause)


def test_dns_step_fails_for_an_unknown_host(gateway: RunningGateway) -> None:
    assert where(diagnosed(gateway, url="http://gone.invalid")) == ("dns", "name_not_resolved")


def test_model_step_fails_when_a_local_model_cannot_be_downloaded(gateway: RunningGateway) -> None:
    finding = diagnosed(gateway, source="local", model="hubgate-tests/nowhere")
    assert where(finding) == ("model", "download_failed")


def test_tcp_step_fails_when_the_port_is_closed(gateway: RunningGateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert where(diagnosed(gateway, url=f"http://127.0.0.1:{port}")) == ("tcp", "connection_refused")


def test_tls_step_fails_for_a_plain_http_server(gateway: RunningGateway) -> None:
    with lookalike("tei") as server:
        assert where(diagnosed(gateway, url=server.url.replace("http:", "https:"))) == ("tls", "tls_failed")


def test_authentication_step_fails_without_a_token(gateway: RunningGateway) -> None:
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
def test_server_error_fails_the_step_of_its_cause(
    gateway: RunningGateway, fault: str, step: str, cause: str
) -> None:
    with lookalike("tei", fault=fault) as server:
        failed = diagnosed(gateway, url=server.url, token="hf_made_up_token_of_a_test")
        assert where(failed) == (step, cause)
        assert "hf_made_up" not in json.dumps(failed)


def test_model_step_fails_for_a_model_of_another_task(gateway: RunningGateway) -> None:
    with lookalike("tei", kind="embedding") as embedder, lookalike("vllm", kind="llm") as writer:
        chat = diagnosed(gateway, url=embedder.url, task="chat_completion")
        assert where(chat) == ("model", "wrong_task")
        assert where(diagnosed(gateway, url=writer.url, task="text_embedding")) == ("model", "wrong_task")
        assert where(diagnosed(gateway, url=embedder.url, task="rerank")) == ("model", "wrong_task")


def test_answer_step_fails_when_the_model_call_fails(gateway: RunningGateway) -> None:
    with lookalike("tei") as server:
        server.fail("failing", method="POST")
        assert where(diagnosed(gateway, url=server.url)) == ("answer", "upstream_failed")


def test_model_step_fails_for_unserved_and_unknown_hosted_models(settings: Settings) -> None:
    with running_hub_api() as hub, lookalike("router", key=TOKEN) as router:
        settings = replace(settings, hf_endpoint=hub.url, router_url=router.url)
        with RunningGateway(settings) as gateway:
            for model, step, cause in (
                ("BAAI/bge-m3", "model", "not_served"),
                ("org/unknown", "model", "model_not_found"),
            ):
                failed = diagnosed(gateway, source="router", model=model, token=TOKEN)
                assert where(failed) == (step, cause)


def test_doctor_prints_the_failed_step_and_the_remedy(gateway: RunningGateway, hubgate: Command) -> None:
    with lookalike("tei") as server:
        gateway.add("e5", url=server.url)
        assert hubgate("doctor", "e5").out.endswith("e5 is healthy.\n")
        server.fail("paused")
        result = hubgate("doctor", "e5")
        assert result.status == 1
        assert "state" in result.out
        assert "paused" in result.err
        assert "Resume it" in result.err


def test_failed_add_prints_the_step_that_failed(gateway: RunningGateway, hubgate: Command) -> None:
    with lookalike("tei", fault="wrong-token") as server:
        result = hubgate("add", "e5", "--url", server.url)
        assert result.status == 1
        assert "authentication" in result.out
        assert "token" in result.err
    assert "authentication" not in hubgate("add", "E5", "--url", "http://127.0.0.1:1").out
