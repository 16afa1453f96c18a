"""An endpoint with several tokens tests each of them, and a rejected one is identified by its last characters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import lookalike

if TYPE_CHECKING:
    from commands import Command
    from running_gateway import RunningGateway

REVOKED, GOOD = "hf_aTokenThatWasRevokedAAAA", "hf_aTokenThatIsKnownBBBB"
BOTH = f"{REVOKED}\n{GOOD}"


def registered(gateway: RunningGateway, **form: Any) -> dict[str, Any]:
    """The endpoint as the API shows it, or the error."""
    reply = gateway.request("POST", "/api/endpoints", {"name": "e5", "token": BOTH, **form})
    assert REVOKED not in reply.body.decode()
    shown: dict[str, Any] = reply.json()
    return shown


@pytest.mark.parametrize(
    ("engine", "form"), [("tei", {}), ("tgi", {"task": "chat_completion"}), ("infinity", {"task": "rerank"})]
)
def test_first_accepted_token_validates_the_endpoint_and_others_are_reported(
    gateway: RunningGateway, engine: str, form: dict[str, Any]
) -> None:
    kind = {"rerank": "reranker", "chat_completion": "llm"}.get(form.get("task", ""), "embedding")
    with lookalike(engine, key=GOOD, kind=kind) as server:
        shown = registered(gateway, url=server.url, **form)
    (warning,) = [told for told in shown["facts"]["warnings"] if "refused" in told]
    assert warning.startswith("The token …AAAA was refused: ")
    assert "401" in warning


def test_detection_uses_the_accepted_token_and_calls_rotate_over_all(
    gateway: RunningGateway,
) -> None:
    with lookalike("tei", key=GOOD) as server:
        registered(gateway, url=server.url)
        assert {asked.token for asked in server.posts} == {GOOD}
        before = len(server.posts)
        reply = gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": ["a"]})
        assert reply.status == 200, reply.body
        assert [asked.token for asked in server.posts[before:]] == [REVOKED, GOOD]


@pytest.mark.parametrize(("fault", "status"), [("no-credit", 402), ("too-many", 429)])
def test_token_without_credit_or_over_its_rate_limit_is_skipped(
    gateway: RunningGateway, fault: str, status: int
) -> None:
    with lookalike("tei") as server:
        server.fail(fault, times=1)
        shown = registered(gateway, url=server.url)
    warning, *_ = shown["facts"]["warnings"]
    assert "…AAAA" in warning
    assert str(status) in warning


def test_when_all_tokens_are_rejected_each_is_named_with_its_reason(gateway: RunningGateway) -> None:
    with lookalike("tei", key="hf_another") as server:
        error = registered(gateway, url=server.url)["error"]
    assert error["cause"] == "wrong_token"
    assert error["message"].startswith("All 2 tokens were refused. …AAAA: ")
    assert " …BBBB: " in error["message"]
    assert gateway.request("GET", "/api/endpoints").json() == {"endpoints": []}


def test_temporary_error_is_reported_before_a_permanent_one(gateway: RunningGateway) -> None:
    with lookalike("tei", rate_limit=(0, 60.0)) as server:
        server.fail("wrong-token", times=1)
        error = registered(gateway, url=server.url)["error"]
    assert error["cause"] == "overloaded"


def test_error_unrelated_to_the_token_is_not_retried_with_others(gateway: RunningGateway) -> None:
    with lookalike("tei", fault="paused") as server:
        assert registered(gateway, url=server.url)["error"]["cause"] == "paused"
        assert {asked.token for asked in server.requests} == {REVOKED}


def test_duplicate_token_is_tried_once(gateway: RunningGateway) -> None:
    with lookalike("tei", key=GOOD) as server:
        error = registered(gateway, url=server.url, token=f"{REVOKED}\n{REVOKED}")["error"]
        assert "401" in error["message"]
        assert len(server.requests) == 1


def test_diagnosis_names_the_rejected_token_of_a_working_endpoint(
    gateway: RunningGateway, hubgate: Command
) -> None:
    with lookalike("tei", key=GOOD) as server:
        gateway.add("e5", url=server.url, token=BOTH)
        told = gateway.request("POST", "/api/endpoints/e5/diagnose").json()
        assert told["well"] is True
        (step,) = [step for step in told["steps"] if step["step"] == "authentication"]
        assert step["outcome"] == "passed"
        assert step["message"].startswith("The token …AAAA was refused: ")
        assert REVOKED not in json.dumps(told)
        assert "The token …AAAA was refused: " in hubgate("doctor", "e5").out
