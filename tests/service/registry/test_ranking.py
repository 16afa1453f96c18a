"""Rerankers that are language models get their prompt exactly once, and a reranker that ranks at random is refused.

The servers are look-alikes whose models rank only if the prompt is right to the letter: `lookalikes.ranker`.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes import LookAlike, lookalike
from lookalikes.ranker import PROMPTS, QWEN3_INSTRUCTION, score_of, written

from hubgate.core.rerank_templates import TEMPLATES
from hubgate.domain.calls import Rerank, Scores
from hubgate.domain.endpoint import Endpoint, Engine, Facts, Source, Task
from hubgate.domain.errors import Cause, InvalidEndpoint
from hubgate.service.registry.ranking import QUESTIONS, probe_reranker

if TYPE_CHECKING:
    from running_gateway import RunningGateway

    from hubgate.domain.calls import Call, Result

QWEN3 = "Qwen/Qwen3-Reranker-0.6B"
MODELS = {
    "qwen3": QWEN3,
    "mxbai": "mixedbread-ai/mxbai-rerank-base-v2",
    "gemma": "BAAI/bge-reranker-v2-gemma",
    "zerank": "zeroentropy/zerank-2-reranker",
    "ctxl": "ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b",
    "nemotron": "nvidia/llama-nemotron-rerank-1b-v2",
}
QUERY, TEXTS = "red fox", ["nothing of it", "the red fox", "a fox"]


def add(gateway: RunningGateway, server: LookAlike, **form: Any) -> Any:
    return gateway.request(
        "POST", "/api/endpoints", {"name": "r", "url": server.url, "task": "rerank", **form}
    )


def prompts(server: LookAlike, place: int = -1) -> list[str]:
    """What a server without a template of its own made of a request: it joins the query and each document."""
    sent = server.posts[place].json
    sent = sent.get("inputs", sent)
    return [sent["query"] + text for text in sent.get("documents") or sent["texts"]]


def order(gateway: RunningGateway, **more: Any) -> list[int]:
    reply = gateway.request("POST", "/v1/rerank", {"model": "r", "query": QUERY, "documents": TEXTS, **more})
    assert reply.status == 200, reply.body
    return [result["index"] for result in reply.json()["results"]]


def test_every_template_of_the_table_has_a_look_alike() -> None:
    assert len(MODELS) == len(TEMPLATES) == len(PROMPTS)


@pytest.mark.parametrize("prompt", MODELS)
def test_model_gets_its_prompt_from_hubgate(gateway: RunningGateway, prompt: str) -> None:
    with lookalike("vllm", kind="reranker", name=MODELS[prompt], prompt=prompt) as server:
        facts = add(gateway, server).json()["facts"]
        assert order(gateway) == [1, 2, 0]
        assert prompts(server) == [written(prompt, QUERY, text) for text in TEXTS]
    assert facts["rerank_template"] in {row.name for row in TEMPLATES}
    assert facts["warnings"] == []


@pytest.mark.parametrize("engine", ["tei", "sglang", "infinity", "toolkit", "openai"])
def test_each_server_without_a_template_gets_the_prompt(gateway: RunningGateway, engine: str) -> None:
    known: dict[str, Any] = {} if engine == "toolkit" else {"name": QWEN3}
    with lookalike(
        engine if engine != "openai" else "vllm", kind="reranker", prompt="qwen3", **known
    ) as server:
        added = add(gateway, server, model=QWEN3, **({"engine": "openai"} if engine == "openai" else {}))
        assert added.status == 201, added.body
        assert order(gateway) == [1, 2, 0]
        assert prompts(server) == [written("qwen3", QUERY, text) for text in TEXTS]


@pytest.mark.parametrize("engine", ["vllm", "tei", "sglang"])
def test_server_that_writes_the_prompt_gets_none(gateway: RunningGateway, engine: str) -> None:
    with lookalike(engine, kind="reranker", name=QWEN3, prompt="qwen3", writes_prompt=True) as server:
        facts = add(gateway, server).json()["facts"]
        assert order(gateway) == [1, 2, 0]
        assert prompts(server) == [QUERY + text for text in TEXTS]
    assert "rerank_template" not in facts


def test_llamacpp_reads_the_prompt_from_the_gguf(gateway: RunningGateway) -> None:
    with lookalike("llamacpp", kind="reranker", name=QWEN3, prompt="qwen3", writes_prompt=True) as server:
        assert add(gateway, server).status == 201
        assert order(gateway) == [1, 2, 0]
        assert prompts(server) == [QUERY + text for text in TEXTS]
    with lookalike("llamacpp", kind="reranker", name=QWEN3, prompt="qwen3") as server:
        error = add(gateway, server, name="old").json()["error"]
    assert error["cause"] == "ranks_at_random"
    assert error["message"].startswith("The reranker ranks at random: it put the right answer first for ")
    assert "Convert the model with a current convert_hf_to_gguf.py" in error["remedy"]


def test_reranker_that_ranks_at_random_is_refused_until_its_model_is_named(gateway: RunningGateway) -> None:
    with lookalike("vllm", kind="reranker", name="rerank", prompt="qwen3") as server:
        refused = add(gateway, server)
        assert refused.status == 400
        assert "set [model] to its name on the Hub" in refused.json()["error"]["remedy"]
        assert gateway.request("GET", "/api/endpoints/r").status == 404
        diagnosis = gateway.request(
            "POST", "/api/diagnose", {"name": "r", "url": server.url, "task": "rerank"}
        ).json()
        (failed,) = [step for step in diagnosis["steps"] if step["outcome"] == "failed"]
        assert (failed["step"], failed["cause"]) == ("answer", "ranks_at_random")
        assert add(gateway, server, model=QWEN3).status == 201
        assert order(gateway) == [1, 2, 0]


def test_edit_to_a_server_that_ranks_at_random_is_refused(gateway: RunningGateway) -> None:
    with lookalike("tei", kind="reranker") as good, lookalike("vllm", kind="reranker", prompt="qwen3") as bad:
        add(gateway, good)
        refused = gateway.request("PATCH", "/api/endpoints/r", {"url": bad.url})
        assert refused.status == 400
        assert order(gateway) == [1, 2, 0]
        assert len(bad.posts) == 9


def test_instruction_is_a_setting_and_a_field_of_a_request(gateway: RunningGateway) -> None:
    with lookalike("vllm", kind="reranker", name=QWEN3, prompt="qwen3") as server:
        assert add(gateway, server, instruction="Find animals").status == 201
        order(gateway)
        assert prompts(server)[0] == written("qwen3", QUERY, TEXTS[0], "Find animals")
        for name in ("instruction", "instruct"):
            assert order(gateway, **{name: "Find {curly} birds"}) == [1, 2, 0]
            assert prompts(server)[0] == written("qwen3", QUERY, TEXTS[0], "Find {curly} birds")
        gateway.request("PATCH", "/api/endpoints/r", {"instruction": None})
        order(gateway)
        assert prompts(server)[0] == written("qwen3", QUERY, TEXTS[0], QWEN3_INSTRUCTION)


@pytest.mark.parametrize(
    ("prompt", "part"),
    [
        ("mxbai", "<|im_start|>user\ninstruction: Find animals\nquery: red fox\n"),
        ("zerank", "<query>red fox</query>\n<instruction>Find animals</instruction><|im_end|>"),
        ("ctxl", "<Query> red fox Find animals ??"),
    ],
)
def test_instruction_has_its_place_in_each_prompt(gateway: RunningGateway, prompt: str, part: str) -> None:
    with lookalike("vllm", kind="reranker", name=MODELS[prompt], prompt=prompt) as server:
        add(gateway, server)
        order(gateway, instruction="Find animals")
        assert part in prompts(server)[0]


@pytest.mark.parametrize(("engine", "field"), [("vllm", "instruction"), ("sglang", "instruct")])
def test_server_that_writes_the_prompt_gets_the_instruction_in_its_field(
    gateway: RunningGateway, engine: str, field: str
) -> None:
    with lookalike(engine, kind="reranker", name=QWEN3, prompt="qwen3", writes_prompt=True) as server:
        add(gateway, server)
        order(gateway)
        assert field not in server.posts[-1].json
        order(gateway, instruction="Find animals")
        assert server.posts[-1].json[field] == "Find animals"
        assert prompts(server) == [QUERY + text for text in TEXTS]


@pytest.mark.parametrize(
    ("engine", "more"),
    [
        ("vllm", {"name": MODELS["gemma"], "prompt": "gemma"}),
        ("tei", {"name": QWEN3, "prompt": "qwen3", "writes_prompt": True}),
        ("vllm", {}),
    ],
)
def test_instruction_for_a_model_that_follows_none_is_refused(
    gateway: RunningGateway, engine: str, more: dict[str, Any]
) -> None:
    with lookalike(engine, kind="reranker", **more) as server:
        refused = add(gateway, server, instruction="Find animals").json()["error"]
        assert refused["message"].startswith("The model does not follow instructions")
        assert add(gateway, server).status == 201
        body = {"model": "r", "query": QUERY, "documents": TEXTS, "instruction": "Find animals"}
        reply = gateway.request("POST", "/v1/rerank", body)
    assert reply.status == 400
    assert "does not follow instructions" in reply.json()["error"]["message"]


def test_too_long_text_is_refused_because_the_end_of_the_prompt_would_be_lost(
    gateway: RunningGateway,
) -> None:
    with lookalike("vllm", kind="reranker", name=QWEN3, prompt="qwen3") as server:
        add(gateway, server)
        order(gateway, truncate=True)
        assert "truncate_prompt_tokens" not in server.posts[-1].json
    with lookalike("tei", kind="reranker", name=QWEN3, prompt="qwen3") as server:
        add(gateway, server, name="t")
        gateway.request("POST", "/hf/t/rerank", {"query": QUERY, "texts": TEXTS, "truncate": True})
        assert server.posts[-1].json["truncate"] is False


@pytest.mark.parametrize("engine", ["vllm", "sglang", "toolkit", "llamacpp"])
def test_raw_scores_are_measured_and_every_face_returns_0_to_1(gateway: RunningGateway, engine: str) -> None:
    """ms-marco's configuration names no activation, so vLLM, SGLang and the toolkit return its raw scores."""
    with lookalike(engine, kind="reranker", raw_scores=True) as server:
        assert add(gateway, server).json()["facts"]["raw_scores"] is True
        hf = gateway.request("POST", "/hf/r/rerank", {"query": QUERY, "texts": TEXTS}).json()
        raw = gateway.request(
            "POST", "/hf/r/rerank", {"query": QUERY, "texts": TEXTS, "raw_scores": True}
        ).json()
        es = gateway.request("POST", "/_inference/rerank/r", {"query": QUERY, "input": TEXTS}).json()[
            "rerank"
        ]
        v1 = gateway.request("POST", "/v1/rerank", {"model": "r", "query": QUERY, "documents": TEXTS}).json()
    expected = sorted((score_of(QUERY, text) for text in TEXTS), reverse=True)
    assert [one["score"] for one in hf] == pytest.approx(expected)
    assert [one["relevance_score"] for one in es] == pytest.approx(expected)
    assert [one["relevance_score"] for one in v1["results"]] == pytest.approx(expected)
    assert [one["score"] for one in raw] == [score_of(QUERY, TEXTS[one["index"]], raw=True) for one in raw]


@pytest.mark.parametrize("engine", ["vllm", "toolkit"])
def test_scores_between_0_and_1_are_left_as_they_are(gateway: RunningGateway, engine: str) -> None:
    with lookalike(engine, kind="reranker") as server:
        assert add(gateway, server).json()["facts"]["raw_scores"] is False
        hf = gateway.request("POST", "/hf/r/rerank", {"query": QUERY, "texts": TEXTS}).json()
    assert [one["score"] for one in hf] == [score_of(QUERY, TEXTS[one["index"]]) for one in hf]


class Model:
    """A reranker as a function of the query and the text."""

    def __init__(self, languages: set[str], seed: int = 0) -> None:
        self._known = {question for language in languages for question in QUESTIONS[language]}
        self._random = random.Random(seed)

    async def __call__(self, call: Call) -> Result:
        assert isinstance(call, Rerank)
        if call.query in self._known:
            return Scores(items=[score_of(call.query, text) for text in call.texts])
        return Scores(items=[self._random.random() for _ in call.texts])


ENDPOINT = Endpoint(
    name="r",
    task=Task.RERANK,
    source=Source.DEDICATED,
    url="http://127.0.0.1:1",
    facts=Facts(engine=Engine.TEI),
)


async def test_english_reranker_is_accepted_with_a_warning() -> None:
    facts = await probe_reranker(ENDPOINT, Model({"English"}, seed=5))
    assert facts.warnings == (
        "The reranker did not rank the test questions in Chinese and Spanish correctly.",
    )
    assert (await probe_reranker(ENDPOINT, Model(set(QUESTIONS)))).warnings == ()


async def test_reranker_without_english_needs_most_answers() -> None:
    facts = await probe_reranker(ENDPOINT, Model({"Chinese", "Spanish"}, seed=1))
    assert facts.warnings == ("The reranker did not rank the test questions in English correctly.",)


async def test_random_reranker_is_nearly_always_refused() -> None:
    """Two hundred random rankers; one in 22 is accepted on average."""
    accepted = 0
    for seed in range(200):
        with contextlib.suppress(InvalidEndpoint):
            await probe_reranker(ENDPOINT, Model(set(), seed))
            accepted += 1
    assert 0 < accepted <= 16


async def test_constant_scores_are_no_order() -> None:
    async def constant(call: Call) -> Result:
        return Scores(items=[0.5 for _ in call.texts])

    with pytest.raises(InvalidEndpoint, match="first for 0 of 9 test questions") as failed:
        await probe_reranker(ENDPOINT, constant)
    assert failed.value.cause is Cause.RANKS_AT_RANDOM
