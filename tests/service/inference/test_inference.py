"""Calls of every task, and fallbacks of endpoints that fail."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import pytest
from msgspec import structs
from stub_sources import dedicated

from hubgate.core.generation import ManagedStream
from hubgate.domain.calls import (
    Chat,
    Complete,
    Context,
    Embed,
    Encoding,
    Generated,
    Rerank,
    Scores,
    SparseEmbed,
    SparseVectors,
    Tokenize,
    Vectors,
    WireFormat,
)
from hubgate.domain.diagnosis import Outcome, Step
from hubgate.domain.endpoint import Engine, Facts, Target, Task
from hubgate.domain.errors import (
    Cause,
    EndpointChanged,
    EndpointDisabled,
    HubgateError,
    InvalidEndpoint,
    InvalidRequest,
    UpstreamRefused,
    UpstreamUnreachable,
    WrongTask,
)
from hubgate.domain.hub import ModelPrompts
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipelines
from hubgate.service.registry.ranking import QUESTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hubgate.domain.calls import Call, GenerationCall, Result
    from hubgate.domain.endpoint import Endpoint
    from hubgate.store.store import SqlStore

DOWN = UpstreamRefused("It is paused.", status=400, cause=Cause.PAUSED)
REFUSED = UpstreamRefused("Too long.", status=413, cause=Cause.INPUT_TOO_LONG)
NO_TEMPLATE = UpstreamRefused("No chat template.", status=422, cause=Cause.INPUT_REFUSED)
BUSY_FOR_AN_HOUR = UpstreamRefused(
    "Overloaded.", status=429, cause=Cause.OVERLOADED, retryable=True, retry_after=3600.0
)
CHAT = Chat(fields={"messages": b"[]"})


def _matches(query: str, text: str) -> bool:
    """Whether a text is the answer to a question, as registration asks."""
    return any(answers.get(query, query) == text for answers in QUESTIONS.values())


@dataclass
class House:
    """One endpoint's model."""

    name: str
    town: Town
    calls: list[Call | GenerationCall] = field(default_factory=list)

    def _come(self, call: Call | GenerationCall) -> None:
        self.calls.append(call)
        error = self.town.errors.get(self.name)
        if error:
            raise error

    async def __call__(self, call: Call) -> Result:
        self._come(call)
        if isinstance(call, Rerank):
            return Scores(items=[float(_matches(call.query, text)) for text in call.texts])
        if isinstance(call, SparseEmbed):
            return SparseVectors(items=[b"{}"] * len(call.texts))
        vector = struct.pack("<2f", *self.town.vectors.get(self.name, (0.6, 0.8)))
        return Vectors(items=[vector] * len(call.texts), encoding=Encoding.F32, tokens=1)

    async def generate(self, call: GenerationCall) -> Generated:
        self._come(call)
        if isinstance(call, Chat) and self.town.chats is not None:
            raise self.town.chats
        if isinstance(call, Complete) and self.town.completes is not None:
            raise self.town.completes
        return Generated(body=self.name.encode(), wire_format=WireFormat.OPENAI)

    async def stream(self, call: GenerationCall) -> Told:
        self._come(call)
        return Told(self.name)

    async def close(self) -> None:
        pass


@dataclass
class Told:
    """An opened stream."""

    name: str
    wire_format: WireFormat = WireFormat.OPENAI

    async def __aiter__(self) -> AsyncIterator[Sequence[bytes]]:
        yield [self.name.encode()]

    async def aclose(self) -> None:
        pass


@dataclass
class Town:
    """The sources of a gateway; what is wrong is set by the endpoint's name."""

    errors: dict[str, HubgateError] = field(default_factory=dict)
    absent: dict[str, HubgateError] = field(default_factory=dict)
    vectors: dict[str, tuple[float, float]] = field(default_factory=dict)
    chats: HubgateError | None = None
    completes: HubgateError | None = None
    houses: dict[str, House] = field(default_factory=dict)

    hugging_face: ClassVar[Sequence[str]] = ()

    def token_route(self, endpoint: Endpoint) -> Sequence[str]:
        return ()

    async def read_prompts(self, target: Target) -> ModelPrompts:
        return ModelPrompts()

    async def added_prompt(self, target: Target) -> str:
        return ""

    async def runs(self, target: Target) -> bool:
        return False

    async def detect(self, target: Target) -> Facts:
        if error := self.absent.get(target.endpoint.name):
            raise error
        return Facts(engine=Engine.TEI, model="org/model")

    async def reach(self, endpoint: Endpoint) -> AsyncIterator[Step]:
        for step in (Step.ADDRESS, Step.DNS, Step.TCP):
            yield step

    def open(self, target: Target) -> House:
        name = target.endpoint.name
        self.houses[name] = House(name, self)
        return self.houses[name]

    def open_generator(self, target: Target) -> House:
        return self.open(target)

    async def close(self) -> None:
        pass


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
async def gateway(store: SqlStore, town: Town) -> AsyncIterator[Gateway]:
    opened = Gateway(store, town, Pipelines(None, time.monotonic))
    yield opened
    await opened.close()


async def pair(gateway: Gateway, task: Task) -> None:
    """Endpoint `main`, and `spare` which stands in for it."""
    await gateway.registry.register(dedicated("spare", task=task, url="http://127.0.0.1:2/"), None)
    await gateway.registry.register(dedicated("main", task=task, fallback="spare"), None)


class TestTasks:
    async def test_each_task_serves_only_its_own_calls(self, gateway: Gateway) -> None:
        for task in Task:
            await gateway.registry.register(dedicated(str(task), task=task), None)
        embed, sparse = Embed(texts=["a"]), SparseEmbed(texts=["a"])
        rerank = Rerank(query="a", texts=["a", "b"])
        assert len((await gateway.inference.embed("text_embedding", embed)).items) == 1
        assert (await gateway.inference.embed_sparse("sparse_embedding", sparse)).items == [b"{}"]
        assert (await gateway.inference.rerank("rerank", rerank)).items == [1.0, 0.0]
        own: dict[Task, Call] = {
            Task.TEXT_EMBEDDING: embed,
            Task.SPARSE_EMBEDDING: sparse,
            Task.RERANK: rerank,
        }
        for task, call in own.items():
            for other in set(Task) - {task}:
                with pytest.raises(WrongTask):
                    await gateway.inference.infer(other, call)
        with pytest.raises(WrongTask, match="serves rerank, not completion or chat_completion"):
            await gateway.inference.generate("rerank", CHAT)
        with pytest.raises(WrongTask):
            await gateway.inference.stream("rerank", CHAT)
        with pytest.raises(InvalidRequest):
            await gateway.inference.infer("completion", Tokenize(texts=["a"]))

    async def test_both_generation_tasks_serve_both_generation_calls(self, gateway: Gateway) -> None:
        for task in (Task.COMPLETION, Task.CHAT_COMPLETION):
            await gateway.registry.register(dedicated(str(task), task=task), None)
            for call in (CHAT, Complete(prompt="a", fields={})):
                assert (await gateway.inference.generate(task, call)).body == task.encode()
                events = await gateway.inference.stream(task, call)
                assert [part async for part in events] == [[task.encode()]]
                await events.aclose()

    async def test_detects_whether_a_generation_model_supports_chat(
        self, gateway: Gateway, town: Town
    ) -> None:
        town.chats = NO_TEMPLATE
        facts = (await gateway.registry.register(dedicated("base", task=Task.COMPLETION), None)).facts
        assert (facts.chats, facts.completes) == (False, True)
        with pytest.raises(UpstreamRefused, match="No chat template"):
            await gateway.registry.register(dedicated("chat", task=Task.CHAT_COMPLETION), None)

    async def test_wrong_token_is_reported_and_not_mistaken_for_a_missing_template(
        self, gateway: Gateway, town: Town
    ) -> None:
        town.errors["main"] = UpstreamRefused("No.", status=401, cause=Cause.WRONG_TOKEN)
        with pytest.raises(UpstreamRefused, match="No"):
            await gateway.registry.register(dedicated("main", task=Task.COMPLETION), None)
        assert len(town.houses["main"].calls) == 1

    async def test_disabled_endpoint_rejects_calls(self, gateway: Gateway) -> None:
        await gateway.registry.register(dedicated("main", task=Task.COMPLETION), None)
        await gateway.registry.edit(replace(gateway.registry.find("main"), enabled=False))
        with pytest.raises(EndpointDisabled):
            await gateway.inference.generate("main", CHAT)
        with pytest.raises(EndpointDisabled):
            await gateway.inference.stream("main", CHAT)


class TestFallback:
    async def test_fallback_answers_when_the_endpoint_fails(self, gateway: Gateway, town: Town) -> None:
        await pair(gateway, Task.CHAT_COMPLETION)
        assert (await gateway.inference.generate("main", CHAT)).body == b"main"
        town.errors["main"] = DOWN
        assert (await gateway.inference.generate("main", CHAT)).body == b"spare"
        events = await gateway.inference.stream("main", CHAT)
        assert [part async for part in events] == [[b"spare"]]
        await events.aclose()

    @pytest.mark.parametrize("task", [Task.CHAT_COMPLETION, Task.RERANK])
    async def test_fallback_answers_when_the_queue_wait_exceeds_the_deadline(
        self, gateway: Gateway, town: Town, task: Task
    ) -> None:
        async def ask() -> None:
            context = Context(deadline=time.monotonic() + 60)
            if task is Task.RERANK:
                await gateway.inference.rerank("main", Rerank(query="q", texts=["a"], context=context))
            else:
                await gateway.inference.generate("main", structs.replace(CHAT, context=context))

        await pair(gateway, task)
        town.errors["main"] = BUSY_FOR_AN_HOUR
        await ask()
        asked = len(town.houses["main"].calls)
        for _ in range(20):
            await ask()
        assert len(town.houses["main"].calls) - asked < 10  # a few test whether it takes calls again

    async def test_embedding_fallback_serves_the_same_model(self, gateway: Gateway, town: Town) -> None:
        await pair(gateway, Task.TEXT_EMBEDDING)
        town.errors["main"] = DOWN
        assert len((await gateway.inference.embed("main", Embed(texts=["a", "b"]))).items) == 2
        assert isinstance(town.houses["spare"].calls[-1], Embed)

    async def test_rejects_an_embedding_fallback_of_another_model_with_the_reason(
        self, gateway: Gateway, town: Town
    ) -> None:
        town.vectors["spare"] = (0.8, 0.6)
        await gateway.registry.register(dedicated("spare"), None)
        with pytest.raises(InvalidEndpoint, match="cannot be the fallback of") as raised:
            await gateway.registry.register(dedicated("main", fallback="spare"), None)
        assert "another vector" in raised.value.message

    async def test_fallback_whose_model_changed_is_no_longer_used(self, gateway: Gateway, town: Town) -> None:
        await pair(gateway, Task.TEXT_EMBEDDING)
        town.errors["main"], town.vectors["spare"] = DOWN, (0.8, 0.6)
        await gateway.registry.accept("spare")
        with pytest.raises(UpstreamRefused, match="paused"):
            await gateway.inference.embed("main", Embed(texts=["a"]))

    async def test_disabled_or_rejected_endpoint_is_not_used_as_fallback(
        self, gateway: Gateway, town: Town
    ) -> None:
        await pair(gateway, Task.TEXT_EMBEDDING)
        town.errors["main"] = DOWN
        await gateway.registry.edit(replace(gateway.registry.find("spare"), enabled=False))
        with pytest.raises(UpstreamRefused, match="paused"):
            await gateway.inference.embed("main", Embed(texts=["a"]))
        await gateway.registry.edit(replace(gateway.registry.find("spare"), enabled=True))
        town.vectors["spare"] = (0.8, 0.6)
        with pytest.raises(EndpointChanged):
            await gateway.registry.check("spare")
        with pytest.raises(UpstreamRefused, match="paused"):
            await gateway.inference.embed("main", Embed(texts=["a"]))

    async def test_rejects_a_fallback_of_another_task_or_a_missing_one(self, gateway: Gateway) -> None:
        await gateway.registry.register(dedicated("ranker", task=Task.RERANK), None)
        with pytest.raises(InvalidEndpoint, match="its task is rerank, not text_embedding"):
            await gateway.registry.register(dedicated("main", fallback="ranker"), None)
        with pytest.raises(
            InvalidEndpoint, match=r"The fallback \[nobody\] of endpoint \[.*\] does not exist"
        ):
            await gateway.registry.register(dedicated("main", fallback="nobody"), None)

    async def test_client_error_is_returned_without_fallback(self, gateway: Gateway, town: Town) -> None:
        await pair(gateway, Task.RERANK)
        town.errors["main"] = REFUSED
        with pytest.raises(UpstreamRefused, match="Too long"):
            await gateway.inference.rerank("main", Rerank(query="q", texts=["a"]))

    async def test_removing_the_fallback_clears_references_to_it(self, gateway: Gateway, town: Town) -> None:
        await pair(gateway, Task.CHAT_COMPLETION)
        await gateway.registry.remove("spare")
        assert gateway.registry.find("main").fallback is None
        town.errors["main"] = DOWN
        with pytest.raises(UpstreamRefused, match="paused"):
            await gateway.inference.generate("main", CHAT)


class TestStreams:
    async def test_replaced_endpoint_still_serves_its_open_streams(self, gateway: Gateway) -> None:
        await gateway.registry.register(dedicated("main", task=Task.COMPLETION), None)
        events = await gateway.inference.stream("main", CHAT)
        assert isinstance(events, ManagedStream)
        await gateway.registry.remove("main")
        assert [part async for part in events] == [[b"main"]]
        await events.aclose()


class TestDiagnosis:
    async def test_diagnosis_reports_each_step_in_order(self, gateway: Gateway) -> None:
        findings = [f async for f in await gateway.registry.diagnose(dedicated("main"))]
        assert [f.step for f in findings] == list(Step)
        assert {f.step for f in findings if f.outcome is Outcome.SKIPPED} == {Step.TLS}
        assert all(f.outcome is not Outcome.FAILED for f in findings)

    @pytest.mark.parametrize(
        ("cause", "step"),
        [
            (Cause.WRONG_TOKEN, Step.AUTHENTICATION),
            (Cause.OUT_OF_CREDIT, Step.SCOPE),
            (Cause.PAUSED, Step.STATE),
            (Cause.NOT_SERVED, Step.MODEL),
            (Cause.UPSTREAM_FAILED, Step.ANSWER),
            (Cause.NAME_NOT_RESOLVED, Step.ANSWER),
        ],
    )
    async def test_failed_step_has_the_cause_and_later_steps_are_skipped(
        self, gateway: Gateway, town: Town, cause: Cause, step: Step
    ) -> None:
        town.absent["main"] = UpstreamRefused("It fails.", status=400, cause=cause, remedy="Mend it.")
        findings = [f async for f in await gateway.registry.diagnose(dedicated("main"))]
        (failed,) = [f for f in findings if f.outcome is Outcome.FAILED]
        assert (failed.step, failed.cause, failed.message, failed.remedy) == (
            step,
            cause,
            "It fails.",
            "Mend it.",
        )
        after = findings[findings.index(failed) + 1 :]
        assert all(f.outcome is Outcome.SKIPPED for f in after)
        before = {f.step for f in findings[: findings.index(failed)] if f.outcome is Outcome.PASSED}
        assert before == set(list(Step)[: list(Step).index(step)]) - {Step.TLS}

    async def test_chat_only_server_is_reported_when_the_task_is_completion(
        self, gateway: Gateway, town: Town
    ) -> None:
        town.completes = UpstreamRefused("No such route.", status=404, cause=Cause.WRONG_TASK)
        for task, said in ((Task.COMPLETION, {Step.MODEL}), (Task.CHAT_COMPLETION, set())):
            findings = [f async for f in await gateway.registry.diagnose(dedicated("main", task=task))]
            assert all(f.outcome is not Outcome.FAILED for f in findings)
            assert {f.step for f in findings if "only chat" in f.message} == said

    async def test_unresponsive_server_is_reported_at_the_answer_step(
        self, gateway: Gateway, town: Town
    ) -> None:
        town.errors["main"] = UpstreamUnreachable("It broke.")
        *_, last = [f async for f in await gateway.registry.diagnose(dedicated("main"))]
        assert (last.step, last.outcome, last.cause) == (Step.ANSWER, Outcome.FAILED, Cause.CONNECTION_LOST)

    async def test_model_that_returns_only_zeros_fails_at_the_answer_step(
        self, gateway: Gateway, town: Town
    ) -> None:
        town.vectors["main"] = (0.0, 0.0)
        *_, last = [f async for f in await gateway.registry.diagnose(dedicated("main"))]
        assert (last.step, last.outcome) == (Step.ANSWER, Outcome.FAILED)
        assert "a vector of zeros" in last.message
