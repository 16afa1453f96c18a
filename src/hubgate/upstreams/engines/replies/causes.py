"""The table of error replies: from status and words to a cause, a message and a remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hubgate.domain.errors import Cause

PINNED, REPEATS_PROMPT = "pinned to", "return_full_text"
MARKERS = (PINNED, REPEATS_PROMPT)
"""Words in an error reply that show which other route to use: see `generation.GenerationRoute.fallback`."""
_UNUSED = re.compile(r"`model_kwargs` are not used by the model: \[([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Rule:
    """One row; the first row that matches a reply applies."""

    statuses: range | frozenset[int]
    words: str | None
    cause: Cause
    message: str
    remedy: str
    retryable: bool = False
    remedy_for_prompts: str = ""
    """The remedy for a model that generates text, if it is another one: nothing is sent in batches or truncated."""


_ANY = range(400, 600)
_ENDPOINT_PAGE = "https://endpoints.huggingface.co"
_TOKENS_PAGE = "https://huggingface.co/settings/tokens"
_BUY = "Buy credit, or use another account's token; [bill_to] lets an organisation pay."

SEND_SHORTER = "Send shorter texts."
_FULL = "The server accepts no more requests at the moment."
_SLOW_DOWN = "Lower the endpoint's requests per minute, or give it more replicas."
_RATE = r"\b(per|a|each|every|/) ?(second|minute|hour)\b|per[_-]?(second|minute|hour)\b|\b[rt]p[ms]\b"
"""Of a quota that is full again soon."""
_NO_CREDIT = (
    r"\b(exceeded|depleted|reached|exhausted|out of|insufficient)\b.{0,80}\b(credits?|usage limit|balance|quota)\b"
    r"|\b(credits?|balance|quota)\b.{0,40}\b(is|are|has been|have been|was) (too low|exceeded|depleted|reached|exhausted|used up)"
    r"|insufficient[_ ](quota|credits?|balance|funds)|billing_hard_limit_reached|credit_balance_too_low"
)


def _only(*statuses: int) -> frozenset[int]:
    return frozenset(statuses)


_RULES = (
    Rule(
        _ANY,
        r"invalid state|endpoint is paused|is paused\b",
        Cause.PAUSED,
        "The endpoint is paused.",
        f"Resume it on its page at {_ENDPOINT_PAGE}; it does not wake by itself.",
    ),
    Rule(
        _only(429),
        _RATE,
        Cause.OVERLOADED,
        _FULL,
        _SLOW_DOWN,
        retryable=True,
    ),
    Rule(_ANY, _NO_CREDIT, Cause.OUT_OF_CREDIT, "The account behind the token has no credit left.", _BUY),
    Rule(_only(429), None, Cause.OVERLOADED, _FULL, _SLOW_DOWN, retryable=True),
    Rule(
        _only(401, 403),
        r"gated (repo|model)|model .{0,200}is (restricted|gated)|awaiting a review",
        Cause.GATED_MODEL,
        "The model is gated: its owner must grant access.",
        "Request access on the model's page at the Hub, then use a token of the account that has it.",
    ),
    Rule(
        _only(401, 403),
        r"sufficient permissions? to call Inference Providers|inference\.serverless",
        Cause.TOKEN_LACKS_SCOPE,
        "The token is valid but may not call Inference Providers.",
        f"Give it the permission to make calls to Inference Providers at {_TOKENS_PAGE}, or create one that has it.",
    ),
    Rule(
        _only(400),
        r"^no connected db",  # LiteLLM without a database, for every token but its master key
        Cause.WRONG_TOKEN,
        "The server does not accept the token.",
        "Give the endpoint a valid token that has access to it.",
    ),
    Rule(
        _only(401),
        None,
        Cause.WRONG_TOKEN,
        "The server does not accept the token.",
        "Give the endpoint a valid token that has access to it.",
    ),
    Rule(_only(402), None, Cause.OUT_OF_CREDIT, "The account behind the token has no credit left.", _BUY),
    Rule(
        _only(403),
        None,
        Cause.TOKEN_LACKS_SCOPE,
        "The token is valid but has no access to this endpoint.",
        "Give it the permission to make calls to Inference Endpoints of the organisation that owns this one.",
    ),
    Rule(
        _only(410),
        None,
        Cause.OLD_ADDRESS,
        "This address is no longer in service.",
        "Register the new address; register hosted models by name, without a URL.",
    ),
    Rule(
        _ANY,
        r"does not support embeddings|not support the embeddings|model is not an embedding|not an embedding model"
        r"|created with embedding=True",
        Cause.WRONG_TASK,
        "The model behind this server does not make embeddings.",
        "Register the endpoint of an embedding model; llama.cpp needs --embeddings.",
    ),
    Rule(
        _only(500),
        r"does not support logits",
        Cause.WRONG_TASK,
        "The model behind this server does not generate text.",
        "Register it for the task that it does; llama.cpp generates text without --embeddings and --reranking.",
    ),
    Rule(
        _only(400, 404, 405, 422, 424, 501),
        r"does not support chat|no chat template|chat template is no longer allowed|template not found"
        r"|chat_template is not set"
        r"|not a chat model|model is not a re-?ranker|does not support (the )?(completions|generate|score|rerank)",
        Cause.WRONG_TASK,
        "The model behind this server does not do this task.",
        "Register it for a task that the model does. A model without a chat template only completes texts; "
        "llama.cpp needs --reranking.",
    ),
    Rule(
        _ANY,
        r"not supported by (any )?provider|no (inference )?provider|not supported by provider"
        r"|not (currently )?(served|deployed|available) (by|on|for)",
        Cause.NOT_SERVED,
        "No Inference Provider serves this model now, or not the named one.",
        "Name another provider, or run the model on an Inference Endpoint.",
    ),
    Rule(
        _only(400),
        r"Pipeline\.\w+\(\) (missing|got an unexpected)|_encode_plus\(\) got an unexpected keyword",
        Cause.WRONG_TASK,
        "The endpoint was deployed with another task.",
        "Deploy it with the task that it is registered for.",
    ),
    Rule(
        _only(400, 422),
        r"model_kwargs. are not used|unexpected keyword|extra (inputs|fields) (are )?not permitted"
        r"|unrecognized (request )?arg|unknown (field|parameter|argument)|unsupported (parameter|value)",
        Cause.INPUT_REFUSED,
        "The server does not support a parameter of the request.",
        "Leave it out.",
    ),
    Rule(
        _ANY,
        r"maximum context length|input is too l(ong|arge)|is too large to process|must have less than \d+ tokens"
        r"|size of tensor a \(\d+\) must match|(longer|larger) than the (model|max)"
        r"|exceeds? the ((model's|available) )?(max\w*|context)",
        Cause.INPUT_TOO_LONG,
        "A text is longer than the model's limit.",
        SEND_SHORTER,
        remedy_for_prompts="Send a shorter prompt, or request fewer tokens: both together have to be within the limit.",
    ),
    Rule(
        _ANY,
        r"batch size \S+ > maximum|at most \d+ items|maximum allowed batch",
        Cause.INPUT_REFUSED,
        "The request has more texts than the server accepts.",
        "Send fewer texts at once.",
    ),
    Rule(
        _ANY,
        r"model .{0,200}(does not exist|not found)|pinned to",
        Cause.MODEL_NOT_FOUND,
        "The server has no model of this name.",
        "Correct the endpoint's model, or accept the one that runs there now with `hubgate accept NAME`.",
    ),
    Rule(
        _only(413),
        None,
        Cause.INPUT_TOO_LONG,
        "The request is larger than the server accepts.",
        "Send fewer or shorter texts at once.",
        remedy_for_prompts="Send a shorter prompt.",
    ),
    Rule(
        _only(404, 405, 501),
        None,
        Cause.MODEL_NOT_FOUND,
        "The server has no route for this task at this address.",
        "Check the URL, and that the model behind it does this task.",
    ),
    Rule(
        _ANY,
        r"out of memory",
        Cause.UPSTREAM_FAILED,  # not overloaded: waiting does not help, and one text may be the reason
        "The server ran out of memory.",
        "Send fewer or shorter texts at once, or give it a larger machine.",
        retryable=True,
        remedy_for_prompts="Send a shorter prompt, or give it a larger machine.",
    ),
    Rule(
        _only(502, 503),
        r"overloaded|queue|rate limit|too many",
        Cause.OVERLOADED,
        "The server accepts no more requests at the moment.",
        "Lower the endpoint's requests per minute, or give it more replicas.",
        retryable=True,
    ),
    Rule(
        _only(502, 503),
        r"unhealthy",
        Cause.UPSTREAM_FAILED,
        "The server reports that it is not healthy.",
        "Look at its log.",
        retryable=True,
    ),
    Rule(
        _only(502, 503),
        None,
        Cause.WAKING,
        "The endpoint is starting, or waking up after it was scaled to zero.",
        "Try again in a few minutes; to keep it awake, set its minimum replicas to 1.",
        retryable=True,
    ),
    Rule(
        _only(408, 504),
        None,
        Cause.UPSTREAM_TIMEOUT,
        "The server timed out waiting for its model.",
        "Send fewer texts at once.",
        retryable=True,
        remedy_for_prompts="Request fewer tokens, or a stream.",
    ),
    Rule(
        _only(400, 422),
        None,
        Cause.INPUT_REFUSED,
        "The server refuses the input.",
        "Change what the server reports.",
    ),
    Rule(
        range(424, 425),
        None,
        Cause.UPSTREAM_FAILED,
        "The model failed.",
        "Look at the server's log.",
        retryable=True,
    ),
    Rule(
        range(500, 600),
        None,
        Cause.UPSTREAM_FAILED,
        "The server failed.",
        "Look at its log.",
        retryable=True,
    ),
)
_OTHER = Rule(_ANY, None, Cause.UPSTREAM_FAILED, "The server refuses the request.", "Look at its log.")
_NO_TOKEN = Rule(
    _only(400, 401, 403),
    None,
    Cause.TOKEN_MISSING,
    "The server requires an access token, and the endpoint has none.",
    "Give the endpoint a token.",
)
ABOUT_THE_TOKEN = frozenset({Cause.WRONG_TOKEN, Cause.TOKEN_LACKS_SCOPE})
"""Causes that cannot apply to a request without a token."""


def unknown_parameters(message: str) -> list[str]:
    """The parameters that a pipeline of transformers reports as unknown."""
    found = _UNUSED.search(message)
    return [name.strip(" '\"") for name in found[1].split(",")] if found else []


def rule_for(status: int, message: str, *, has_token: bool) -> Rule:
    """The meaning of an error reply to a request with or without a token."""
    rule = next((rule for rule in _RULES if _matches(rule, status, message)), _OTHER)
    return rule if has_token or rule.cause not in ABOUT_THE_TOKEN else _NO_TOKEN


def _matches(rule: Rule, status: int, message: str) -> bool:
    return status in rule.statuses and (
        rule.words is None or re.search(rule.words, message, re.IGNORECASE) is not None
    )
