"""The state of an endpoint, from its real queue, rate limit and circuit breaker."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from scripted_gateway import two_numbers
from stub_sources import dedicated, until

from hubgate.domain.calls import Embed
from hubgate.domain.endpoint import Endpoint, Source, Target, Task
from hubgate.domain.errors import Cause, HubgateError, UpstreamRefused
from hubgate.service.inference.pipeline import Pipeline, Pipelines
from hubgate.service.registry.startup import LOADING
from hubgate.service.states import Kind, ReplicaState, State, merge, state_of

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import Call, Result

CALL = Embed(texts=("a",))


class _Model:
    """Answers, or fails for a cause."""

    def __init__(self, cause: Cause | None = None) -> None:
        self.cause = cause

    async def __call__(self, call: Call) -> Result:
        if self.cause:
            waking = self.cause is Cause.WAKING
            raise UpstreamRefused("It does not.", status=503, cause=self.cause, retryable=waking)
        return two_numbers(call)

    async def close(self) -> None:
        pass


def _state(
    gateway: ScriptedGateway, endpoint: Endpoint, pipeline: Pipeline, unready: str | None = None
) -> State:
    said = {endpoint.name: unready} if unready else {}
    return state_of(gateway.service, endpoint, pipeline, said)


def _opened(endpoint: Endpoint, model: _Model) -> Pipeline:
    return Pipelines(None, asyncio.get_running_loop().time).build(Target(endpoint), model)


async def test_running_model_shows_how_much_of_its_rate_limit_is_used(
    scripted: ScriptedGateway,
) -> None:
    endpoint = dedicated(requests_per_minute=4)
    pipeline = _opened(endpoint, _Model())
    assert _state(scripted, endpoint, pipeline) == State(kind=Kind.RUNNING, concurrency_limit=8, used=0.0)
    await pipeline.answer(CALL)
    assert _state(scripted, endpoint, pipeline) == State(kind=Kind.RUNNING, concurrency_limit=8, used=0.25)


async def test_local_model_shows_its_rate_limit_only_if_it_has_one(scripted: ScriptedGateway) -> None:
    endpoint = Endpoint(name="e5", task=Task.TEXT_EMBEDDING, source=Source.LOCAL, model="org/model")
    assert _state(scripted, endpoint, _opened(endpoint, _Model())).used is None
    limited = replace(endpoint, requests_per_minute=4)
    pipeline = _opened(limited, _Model())
    await pipeline.answer(CALL)
    assert _state(scripted, limited, pipeline).used == 0.25
    chat = replace(endpoint, task=Task.CHAT_COMPLETION)
    assert _state(scripted, chat, _opened(chat, _Model())).used is None


async def test_queued_call_shows_the_wait_for_the_rate_limit(scripted: ScriptedGateway) -> None:
    endpoint = dedicated(requests_per_minute=2)
    pipeline = _opened(endpoint, _Model())
    await pipeline.answer(CALL)
    waiting = asyncio.ensure_future(pipeline.answer(CALL))
    await until(lambda: _state(scripted, endpoint, pipeline).kind is Kind.WAITING)
    state = _state(scripted, endpoint, pipeline)
    assert (state.waiting, state.used) == (1, 0.5)
    assert 25 <= state.seconds <= 31
    waiting.cancel()
    await pipeline.close()


@pytest.mark.parametrize(("cause", "kind"), [(Cause.WRONG_TOKEN, Kind.FAILING), (Cause.PAUSED, Kind.PAUSED)])
async def test_repeatedly_failing_server_is_shown_with_the_cause(
    scripted: ScriptedGateway, cause: Cause, kind: Kind
) -> None:
    endpoint = dedicated(requests_per_minute=6000)
    pipeline = _opened(endpoint, _Model(cause))
    for _ in range(5):
        with pytest.raises(HubgateError):
            await pipeline.answer(CALL)
    state = _state(scripted, endpoint, pipeline)
    assert (state.kind, state.cause) == (kind, cause)


async def test_waking_server_is_shown(scripted: ScriptedGateway) -> None:
    endpoint = dedicated()
    pipeline = _opened(endpoint, _Model(Cause.WAKING))
    waking = asyncio.ensure_future(pipeline.answer(CALL))
    await until(lambda: _state(scripted, endpoint, pipeline).kind is Kind.WAKING)
    waking.cancel()
    await pipeline.close()


async def test_states_known_without_calling_a_server_are_shown(scripted: ScriptedGateway) -> None:
    endpoint = scripted.service.registry.find("e5")
    pipeline = scripted.service.pipelines()["e5"]
    assert _state(scripted, endpoint, pipeline).kind is Kind.RUNNING
    assert _state(scripted, replace(endpoint, enabled=False), pipeline).kind is Kind.OFF
    assert _state(scripted, endpoint, pipeline, LOADING).kind is Kind.LOADING
    failed = _state(scripted, endpoint, pipeline, "The folder has no weights.")
    assert (failed.kind, failed.cause) == (Kind.FAILING, Cause.MODEL_UNUSABLE)


def test_state_of_several_gateways_has_sums_and_the_worst_kind() -> None:
    replicas = [ReplicaState(name="a", requests=2), ReplicaState(name="b", in_flight=1, requests=1)]
    own = State(waiting=1, in_flight=2, concurrency_limit=16, used=0.75, replicas=replicas)
    failed = [
        ReplicaState(name="a", kind=Kind.FAILING, cause=Cause.OVERLOADED, message="Full.", requests=3),
        ReplicaState(name="of-before-a-change", requests=9),
    ]
    parts = {
        "gate-1": own,
        "gate-2": State(
            kind=Kind.WAITING, seconds=7, waiting=4, concurrency_limit=4, used=0.5, replicas=failed
        ),
        "gate-3": State(kind=Kind.PAUSED, cause=Cause.PAUSED),
    }
    assert merge(own, parts) == State(
        kind=Kind.PAUSED,
        cause=Cause.PAUSED,
        seconds=7,
        waiting=5,
        in_flight=2,
        concurrency_limit=20,
        used=1.0,
        replicas=(
            ReplicaState(name="a", kind=Kind.FAILING, cause=Cause.OVERLOADED, message="Full.", requests=5),
            replicas[1],
        ),
        gateways=parts,
    )


def test_state_of_the_only_gateway_is_its_own() -> None:
    state = State(kind=Kind.FAILING, cause=Cause.OVERLOADED, in_flight=3)
    assert merge(State(), {"gate-1": state}) == state
