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
def test_the_first_that_is_not_refused_proves_it_and_the_others_are_told_of(
    gateway: RunningGateway, engine: str, form: dict[str, Any]
) -> None:
    kind = {"rerank": "reranker", "chat_completion": "llm"}.get(form.get("task", ""), "embedding")
    with lookalike(engine, key=GOOD, kind=kind) as server:
        shown = registered(gateway, url=server.url, **form)
    (warning,) = [told for told in shown["facts"]["warnings"] if "refused" in told]
    assert warning.startswith("The token …AAAA was refused: ")
    assert "401" in warning


def test_what_is_learned_is_asked_with_the_good_one_and_calls_take_all_in_turn(
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
def test_one_without_credit_or_with_a_spent_minute_is_passed_over_too(
    gateway: RunningGateway, fault: str, status: int
) -> None:
    with lookalike("tei") as server:
        server.fail(fault, times=1)
        shown = registered(gateway, url=server.url)
    warning, _ = shown["facts"]["warnings"]
    assert "…AAAA" in warning
    assert str(status) in warning


def test_when_all_are_refused_each_is_named_with_its_reason(gateway: RunningGateway) -> None:
    with lookalike("tei", key="hf_another") as server:
        error = registered(gateway, url=server.url)["error"]
    assert error["cause"] == "wrong_token"
    assert error["message"].startswith("All 2 tokens were refused. …AAAA: ")
    assert " …BBBB: " in error["message"]
    assert gateway.request("GET", "/api/endpoints").json() == {"endpoints": []}


def test_what_waiting_cures_is_told_before_what_it_does_not(gateway: RunningGateway) -> None:
    with lookalike("tei", rate_limit=(0, 60.0)) as server:
        server.fail("wrong-token", times=1)
        error = registered(gateway, url=server.url)["error"]
    assert error["cause"] == "overloaded"


def test_what_is_not_about_the_token_is_asked_once(gateway: RunningGateway) -> None:
    with lookalike("tei", fault="paused") as server:
        assert registered(gateway, url=server.url)["error"]["cause"] == "paused"
        assert {asked.token for asked in server.requests} == {REVOKED}


def test_a_token_that_stands_twice_is_asked_once(gateway: RunningGateway) -> None:
    with lookalike("tei", key=GOOD) as server:
        error = registered(gateway, url=server.url, token=f"{REVOKED}\n{REVOKED}")["error"]
        assert "401" in error["message"]
        assert len(server.requests) == 1


def test_a_diagnosis_says_which_was_refused_and_that_the_endpoint_is_well(
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
