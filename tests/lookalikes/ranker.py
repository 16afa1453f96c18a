"""The scores that every look-alike computes, and the formats in which servers send them.

Some rerankers are language models, and rank only if they read their prompt, letter by letter. The prompts are written
down here from the models' cards, apart from hubgate's own table.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer, token_count

if TYPE_CHECKING:
    from lookalikes.model import Model, ReceivedRequest

QWEN3 = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided."
    ' Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n"
    "<think>\n\n</think>\n\n"
)
QWEN3_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
MXBAI = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{instruction}query: {query}\ndocument: {document}\nYou are a search relevance expert who evaluates"
    " how well documents match search queries. For each query-document pair, carefully analyze the semantic relationship"
    " between them, then provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    "<|im_end|>\n<|im_start|>assistant\n"
)
PROMPTS = {
    "qwen3": QWEN3,
    "mxbai": MXBAI,
    "gemma": "A: {query}\nB: {document}\nGiven a query A and a passage B, determine whether the passage contains an answer"
    " to the query by providing a prediction of either 'Yes' or 'No'.",
    "zerank": "<|im_start|>system\n{query}<|im_end|>\n<|im_start|>user\n{document}<|im_end|>\n<|im_start|>assistant\n",
    "ctxl": "Check whether a given document contains information helpful to answer the query.\n"
    "<Document> {document}\n<Query> {query} ??",
    "nemotron": "question:{query} \n \n passage:{document}",
}
DEFAULTS = {"qwen3": QWEN3_INSTRUCTION, "mxbai": ""}
"""What stands in the place of the instruction, without one."""


def written(prompt: str, query: str, document: str, instruction: str | None = None) -> str:
    """The prompt as the server's own template writes it."""
    values = {"query": query, "document": document, "instruction": instruction or DEFAULTS.get(prompt, "")}
    return PROMPTS[prompt].format(**values)


def read(prompt: str, text: str) -> tuple[str, str, str] | None:
    """The query, the document and the instruction in a prompt; `None` if it is not written as the model reads it."""
    pattern = re.escape(PROMPTS[prompt])
    for name in ("query", "document", "instruction"):
        pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>.*?)")
    found = re.fullmatch(pattern, text, re.DOTALL)
    if found is None or "<|im_start|>" in found["query"] + found["document"]:
        return None
    return found["query"], found["document"], found.groupdict().get("instruction", "")


def chance(text: str) -> float:
    """A score that says nothing."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") / 2**32


_WORD = re.compile(r"[\u4e00-\u9fff]|[^\s\u4e00-\u9fff]+")
"""A Chinese character is a word."""


def score_of(query: str, text: str, *, raw: bool = False) -> float:
    """The share of the query's words in the text; raw is its logit, clamped."""
    words, found = _WORD.findall(query.lower()), _WORD.findall(text.lower())
    share = sum(word in found for word in words) / len(words)
    return _clamped(share, raw=raw)


def _clamped(share: float, *, raw: bool) -> float:
    kept = min(max(share, 0.01), 0.99)
    return math.log(kept / (1 - kept)) if raw else kept


def _prompt(model: Model, request: ReceivedRequest, query: str, text: str) -> str:
    """What the model reads."""
    if model.prompt and model.writes_prompt:
        instruction = request.field("instruction") or request.field("instruct")
        return written(model.prompt, query, text, instruction)
    return query + text


def _scored(model: Model, request: ReceivedRequest, query: str, text: str, *, raw: bool) -> float:
    if model.prompt is None:
        return score_of(query, text, raw=raw)
    prompt = _prompt(model, request, query, text)
    parts = read(model.prompt, prompt)
    return score_of(parts[0], parts[1], raw=raw) if parts else _clamped(chance(prompt), raw=raw)


def ranked(
    model: Model, request: ReceivedRequest, query: str, texts: list[str], *, raw: bool = False
) -> list[tuple[int, float]]:
    """Indices and scores, best first."""
    scores = [(place, _scored(model, request, query, text, raw=raw)) for place, text in enumerate(texts)]
    return sorted(scores, key=lambda score: -score[1])


def tokens_of(model: Model, request: ReceivedRequest, query: str, texts: list[str]) -> int:
    """The tokens of all pairs: one per word, and the special ones of a cross-encoder."""
    if model.prompt:
        return sum(len(_prompt(model, request, f"{query} ", text).split()) for text in texts)
    return sum(token_count(query) + token_count(text) - 1 for text in texts)


def results(model: Model, request: ReceivedRequest, *, raw: bool = False) -> Answer:
    """In the format of Cohere and vLLM."""
    if request.field("documents") is None or request.field("query") is None:
        words = "1 validation error: {'type': 'missing', 'loc': 'body.documents', 'msg': 'Field required'}"
        return Answer(400, {"error": {"message": words, "type": "Bad Request", "code": 400}})
    query, texts = request.field("query"), request.texts
    tokens = tokens_of(model, request, query, texts)
    said: list[dict[str, Any]] = [
        {"index": place, "relevance_score": score, "document": {"text": texts[place]}}
        for place, score in ranked(model, request, query, texts, raw=raw or model.raw_scores)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer(200, {"id": "score-1", "model": model.name, "usage": usage, "results": said})


def pairs(
    model: Model, request: ReceivedRequest, query: str, texts: list[str], *, raw: bool = False
) -> list[dict[str, Any]]:
    """In the format of TEI and the toolkit."""
    return [
        {"index": place, "score": score}
        for place, score in ranked(model, request, query, texts, raw=raw or model.raw_scores)
    ]
