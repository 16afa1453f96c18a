"""Hugging Face's toolkit names its task nowhere, but its answer to one text tells with which it was deployed."""

from __future__ import annotations

import re

import orjson

from hubgate.domain.endpoint import Task
from hubgate.domain.errors import Cause, InvalidEndpoint
from hubgate.upstreams.engines.embedders import json_request
from hubgate.upstreams.http.messages import HttpReply, HttpRequest

_QUESTIONS: dict[Task, dict[str, object]] = {
    Task.TEXT_EMBEDDING: {"inputs": ["test"]},
    Task.RERANK: {"inputs": "test"},
    Task.COMPLETION: {"inputs": "test", "parameters": {"max_new_tokens": 1}},
}
_DEPLOY_AS = {
    Task.TEXT_EMBEDDING: "Sentence Embeddings",
    Task.RERANK: "Text Ranking",
    Task.COMPLETION: "Text Generation",
}
"""What to choose on the endpoint's page."""
_DOES = {
    "sentence-embeddings": Task.TEXT_EMBEDDING,
    "feature-extraction": Task.TEXT_EMBEDDING,
    "text-ranking": Task.RERANK,
    "text-generation": Task.COMPLETION,
    "summarization": Task.COMPLETION,
    "translation": Task.COMPLETION,
}
_OF_KEY = {
    "embeddings": "sentence-embeddings",
    "similarities": "sentence-similarity",
    "scores": "text-ranking",
    "generated_text": "text-generation",
    "summary_text": "summarization",
    "translation_text": "translation",
    "entity": "token-classification",
    "label": "text-classification",
}
"""The task by what an answer holds."""
_OF_ERROR = {
    r"SentenceSimilarityPipeline": "sentence-similarity",
    r"SentenceEmbeddingPipeline": "sentence-embeddings",
    r"SentenceRankingPipeline": "text-ranking",
    r"_encode_plus\(\) got an unexpected keyword argument": "text-classification",
}
"""The task by the words of a Python error; a classifier hands what it does not know to its tokenizer."""


def deployment_question(url: str, task: Task) -> HttpRequest | None:
    """What to ask a toolkit that is wanted for a task; `None` where its answer would not tell."""
    body = _QUESTIONS.get(task)
    return json_request(url, body) if body else None


def task_in_reply(reply: HttpReply) -> str | None:
    """The task that the toolkit was deployed with, in Hugging Face's words; `None` if it cannot be told."""
    try:
        value = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None
    nested = isinstance(value, list)
    while isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        return next((task for key, task in _OF_KEY.items() if key in value), None)
    return "feature-extraction" if nested and type(value) in {int, float} else None


def task_in_error(said: str) -> str | None:
    """The same of a refusal."""
    return next((task for words, task in _OF_ERROR.items() if re.search(words, said)), None)


def check_deployed_task(deployed: str | None, wanted: Task) -> None:
    """See whether a toolkit does what it is wanted for.

    Raises:
        InvalidEndpoint: it was deployed with another task; says which to deploy it with.
    """
    if deployed is None or _DOES.get(deployed) is wanted:
        return
    other = f", or register it for {_DOES[deployed]}" if deployed in _DOES else ""
    raise InvalidEndpoint(
        f"The endpoint was deployed with the task {deployed}, which does not do {wanted}.",
        remedy=f"Deploy it with the task {_DEPLOY_AS[wanted]}{other}.",
        cause=Cause.WRONG_TASK,
    )
