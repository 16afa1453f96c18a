"""Requests to a server that embeds and reranks: vectors of all-MiniLM-L6-v2, and scores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import openai
from elasticsearch import ApiError, NotFoundError
from huggingface_hub.errors import HfHubHTTPError

from engines.stage import close, refused, same
from hubgate.upstreams.engines.rerank import sigmoid

if TYPE_CHECKING:
    from engines.stage import Check, Stage

EMBED, RANK = "text_embedding", "rerank"
MODEL, RANKER = "sentence-transformers/all-MiniLM-L6-v2", "ranker"
LOCAL = "all-minilm-l6-v2"
LOCAL_RANKERS = {"infinity": "local-ranker", "llamacpp": "local-ranker-one-segment"}
"""The endpoints of the gateway's own runtime, for the same weights; rerankers by engine."""
AS_THERE, AS_HERE = 1e-6, {"infinity": 1e-4, "llamacpp": 1e-3}
"""How far numbers may be from the server's own, and from those of the gateway's runtime.

llama.cpp computes GELU with numbers of 16 bits.
"""
TEXTS = [
    "hello",
    "The gate opens at dawn.",
    "A harbour town, and the boats that come with the first light.",
    "门在黎明时打开。",
    "دروازه در سپیده‌دم باز می‌شود.",
    "Überraschung: 3.14 nets!",
]
LONG = "The gulls know every one of the boats. " * 60
QUERY = "which boats come with the first light"


def recognised(stage: Stage) -> None:
    """The gateway knows what it is, and finds it well."""
    for task in stage.tasks:
        stage.check_recognised(task)


def openai_embeds(stage: Stage) -> None:
    """By openai: vectors are the server's own, as numbers and as base64."""
    expected, create = _vectors(stage, TEXTS), stage.openai.embeddings.create
    as_base64 = create(model=stage.name_of(EMBED), input=TEXTS)
    close([one.embedding for one in as_base64.data], expected, AS_THERE)
    as_numbers = create(model=stage.name_of(EMBED), input=TEXTS, encoding_format="float")
    close([one.embedding for one in as_numbers.data], expected, AS_THERE)


def hub_embeds(stage: Stage) -> None:
    """By huggingface_hub: vectors are the server's own, and sentences are compared by them."""
    expected, client = _vectors(stage, TEXTS), stage.hub(EMBED)
    close(client.feature_extraction(TEXTS).tolist(), expected, AS_THERE)
    cosines = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])
    dots = [sum(a * b for a, b in zip(expected[0], other, strict=True)) for other in expected[1:]]
    close([cosines], [dots], AS_THERE)


def elastic_embeds(stage: Stage) -> None:
    """By elasticsearch: vectors are the server's own, of inference and of text_embedding."""
    expected, client, name = _vectors(stage, TEXTS), stage.elastic.inference, stage.name_of(EMBED)
    for ask in (client.inference, client.text_embedding):
        told = ask(inference_id=name, input=TEXTS)["text_embedding"]
        close([one["embedding"] for one in told], expected, AS_THERE)


def embeds_as_here(stage: Stage) -> None:
    """Vectors are those of the gateway's own runtime for the same weights."""
    create = stage.openai.embeddings.create
    here = create(model=LOCAL, input=TEXTS, encoding_format="float")
    there = create(model=stage.name_of(EMBED), input=TEXTS, encoding_format="float")
    close([one.embedding for one in there.data], [one.embedding for one in here.data], AS_HERE[stage.engine])


def ranks_as_here(stage: Stage) -> None:
    """Scores are those of the gateway's own runtime for the same weights."""
    close(
        [_ranked(stage, stage.name_of(RANK))],
        [_ranked(stage, LOCAL_RANKERS[stage.engine])],
        AS_HERE[stage.engine],
    )


def many_at_once(stage: Stage) -> None:
    """Of 200 texts that are asked for at once, each has its own vector."""
    texts = [f"boat {number} of {number % 7} nets" for number in range(200)]
    expected = _vectors(stage, texts)

    def ask(text: str) -> list[float]:
        told = stage.openai.embeddings.create(model=stage.name_of(EMBED), input=text)
        return told.data[0].embedding

    with ThreadPoolExecutor(40) as pool:
        close(pool.map(ask, texts), expected, AS_THERE)


def counted(stage: Stage) -> None:
    """Tokens are the model's own, though the server tells characters; the gateway's usage has them."""
    before = stage.used(EMBED)
    told = stage.openai.embeddings.create(model=stage.name_of(EMBED), input=TEXTS)
    here = stage.openai.embeddings.create(model=LOCAL, input=TEXTS)
    same(told.usage.prompt_tokens, here.usage.prompt_tokens, "usage")
    same(stage.used(EMBED)[0] - before[0], told.usage.prompt_tokens, "the gateway's usage")
    assert not (told.usage.model_extra or {}).get("estimated"), told.usage


def too_long_is_told(stage: Stage) -> None:
    """A text longer than the model reads is cut as there and as here, and every face says so."""
    expected = _vectors(stage, [LONG])
    told = stage.openai.embeddings.create(model=stage.name_of(EMBED), input=LONG)
    close([told.data[0].embedding], expected, AS_THERE)
    here = stage.openai.embeddings.create(model=LOCAL, input=LONG, encoding_format="float")
    close([told.data[0].embedding], [here.data[0].embedding], AS_HERE[stage.engine])
    same((told.usage.model_extra or {}).get("truncated_inputs"), 1, "truncated_inputs")
    for path, body in (
        (f"/hf/{stage.name_of(EMBED)}/embed", {"inputs": LONG}),
        (f"/_inference/text_embedding/{stage.name_of(EMBED)}", {"input": LONG}),
    ):
        same(stage.gateway.request("POST", path, body).headers["X-Hubgate-Truncated"], "1", path)


def too_long_is_refused(stage: Stage) -> None:
    """A text longer than the model reads is refused on all three faces, with that cause."""
    words, name = "longer than the model's limit", stage.name_of(EMBED)
    create = stage.openai.embeddings.create
    refused(lambda: create(model=name, input=["hello", LONG]), openai.BadRequestError, words)
    refused(lambda: stage.hub(EMBED).feature_extraction(LONG), HfHubHTTPError, words)
    refused(lambda: stage.elastic.inference.text_embedding(inference_id=name, input=LONG), ApiError, words)


def ranks(stage: Stage) -> None:
    """All three faces rank as the server does, best first, and raw where they are asked for."""
    _check_ranks(stage, _scores(stage), _scores(stage, raw_scores=True))


def ranks_by_raw_scores(stage: Stage) -> None:
    """All three faces rank as the server does, best first: scores of 0 to 1, and the server's own where raw ones are asked for."""
    raw = _scores(stage)
    assert max(raw) > 1 or min(raw) < 0, f"{raw} are not raw"
    _check_ranks(stage, [sigmoid(score) for score in raw], raw)


def _check_ranks(stage: Stage, expected: list[float], expected_raw: list[float]) -> None:
    name, documents = stage.name_of(RANK), TEXTS
    close([_ranked(stage, name)], [expected], AS_THERE)
    told = stage.elastic.inference.rerank(inference_id=name, query=QUERY, input=documents)["rerank"]
    same([one["index"] for one in told], sorted(range(len(TEXTS)), key=lambda place: -expected[place]))
    close([_in_order(told, "relevance_score")], [expected], AS_THERE)
    raw = stage.gateway.request(
        "POST", f"/hf/{name}/rerank", {"query": QUERY, "texts": TEXTS, "raw_scores": True}
    )
    close([_in_order(raw.json(), "score")], [expected_raw], AS_THERE)


def refuses_names(stage: Stage) -> None:
    """A name that is no endpoint's is refused on all three faces, in each client's own error."""
    said = "none-such"
    refused(lambda: stage.openai.embeddings.create(model=said, input="x"), openai.NotFoundError, said)
    refused(lambda: stage.hub("none_such").feature_extraction("x"), HfHubHTTPError, said)
    elastic = stage.elastic.inference
    refused(lambda: elastic.text_embedding(inference_id=said, input="x"), NotFoundError, said)


def refuses_tasks(stage: Stage) -> None:
    """What it does not do is refused, called and registered."""
    name = stage.name_of(EMBED)
    messages: Any = [{"role": "user", "content": "x"}]
    chat = stage.openai.chat.completions.create
    refused(lambda: chat(model=name, messages=messages), openai.BadRequestError, "serves text_embedding")
    refused(lambda: stage.hub(EMBED).chat_completion(messages), HfHubHTTPError, "serves text_embedding")
    elastic = stage.elastic.inference
    refused(lambda: elastic.rerank(inference_id=name, query="x", input=["x"]), ApiError)
    same(stage.register("wrong", "chat_completion")["error"]["cause"], "wrong_task")


def refuses_other_models(stage: Stage) -> None:
    """Registered as another embedding model, or with a wrong token, it is refused, and nothing is stored."""
    told = stage.register("wrong", EMBED, model="intfloat/e5-small")["error"]
    assert MODEL in told["message"], told
    told = stage.register("wrong", EMBED, token="not-it")["error"]
    same(told["cause"], "wrong_token")
    same(stage.gateway.request("GET", "/api/endpoints/wrong").status, 404)


def _vectors(stage: Stage, texts: list[str]) -> list[list[float]]:
    told = stage.directly("/v1/embeddings", model=MODEL, input=texts)
    return [one["embedding"] for one in sorted(told["data"], key=lambda one: one["index"])]


def _scores(stage: Stage, **options: object) -> list[float]:
    told = stage.directly("/v1/rerank", model=RANKER, query=QUERY, documents=TEXTS, **options)
    return _in_order(told["results"], "relevance_score")


def _ranked(stage: Stage, name: str) -> list[float]:
    asked = {"model": name, "query": QUERY, "documents": TEXTS}
    return _in_order(stage.gateway.request("POST", "/v1/rerank", asked).json()["results"], "relevance_score")


def _in_order(ranks: Any, score: str) -> list[float]:
    return [rank[score] for rank in sorted(ranks, key=lambda rank: rank["index"])]


def ranks_only(stage: Stage) -> None:
    """Registered as an embedding model or for chats, it is refused."""
    for task in (EMBED, "chat_completion"):
        told = stage.register("wrong", task)
        same(told.get("error", {}).get("cause"), "wrong_task", task)


EMBED_CHECKS: tuple[Check, ...] = (
    recognised,
    openai_embeds,
    hub_embeds,
    elastic_embeds,
    embeds_as_here,
    many_at_once,
    counted,
    refuses_names,
    refuses_tasks,
    refuses_other_models,
)
