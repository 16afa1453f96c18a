from __future__ import annotations

import copy
import pickle

import pytest

from hubgate.domain.endpoint import Endpoint, InputType, Source, Target, Task
from hubgate.domain.errors import (
    Cause,
    EndpointNotFound,
    HubgateError,
    InvalidEndpoint,
    QueueFull,
    UpstreamRefused,
)
from hubgate.domain.secret import Secret


def endpoint(**changes: object) -> Endpoint:
    fields: dict[str, object] = {
        "name": "e5",
        "task": Task.TEXT_EMBEDDING,
        "source": Source.DEDICATED,
        "url": "https://x",
    }
    return Endpoint(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["e5", "a", "my-model_2.1", "0"])
def test_accepts_valid_endpoint_names(name: str) -> None:
    assert endpoint(name=name).name == name


@pytest.mark.parametrize("name", ["", "E5", "-e5", "e5-", "a/b", "a b", "_all", "é", "e5\n", ".."])
def test_rejects_invalid_endpoint_names(name: str) -> None:
    with pytest.raises(InvalidEndpoint, match="lowercase alphanumeric"):
        endpoint(name=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"requests_per_minute": 0},
        {"dimensions": -1},
        {"dimensions": 65_537},
        {"max_input_tokens": 0},
        {"url": None},
        {"source": Source.LOCAL, "model": None},
    ],
)
def test_rejects_endpoints_that_cannot_work(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidEndpoint):
        endpoint(**changes)


def test_error_has_message_and_cause_of_its_class() -> None:
    error = EndpointNotFound("e5")
    assert str(error) == "No endpoint is named [e5]."
    assert error.cause is Cause.ENDPOINT_NOT_FOUND
    assert not error.retryable
    assert str(HubgateError("Alone.")) == "Alone."


def test_error_instance_overrides_class_defaults() -> None:
    error = UpstreamRefused("Paused.", status=400, cause=Cause.PAUSED, retryable=True, retry_after=3.0)
    assert (error.cause, error.retryable, error.retry_after, error.status) == (Cause.PAUSED, True, 3.0, 400)
    assert QueueFull("Full.").retryable


def test_secret_shows_at_most_its_last_four_characters() -> None:
    secret = Secret("hf_abcdefghijkl")
    assert secret.reveal() == "hf_abcdefghijkl"
    assert repr(secret) == str(secret) == f"{secret}" == "Secret('…ijkl')"
    assert Secret("short").hint == "…"


def test_target_repr_masks_its_token() -> None:
    shown = repr(Target(endpoint(), Secret("hf_abcdefghijklmnop")))
    assert "Secret('…mnop')" in shown
    assert "hf_abc" not in shown


def test_secrets_compare_by_value_and_cannot_be_pickled_or_copied() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    with pytest.raises(TypeError):
        pickle.dumps(Secret("a"))
    with pytest.raises(TypeError):
        copy.deepcopy(Secret("a"))


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("ingest", InputType.INGEST),
        ("Document", InputType.INGEST),
        ("QUERY", InputType.SEARCH),
        ("search", InputType.SEARCH),
        ("clustering", InputType.CLUSTERING),
    ],
)
def test_parses_input_type_names_of_every_api(word: str, meant: InputType) -> None:
    assert InputType.parse(word) is meant
    with pytest.raises(ValueError, match="nonsense"):
        InputType.parse("nonsense")
