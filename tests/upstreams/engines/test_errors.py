"""Mapping of error replies to causes: every row of the table, from real server replies."""

from __future__ import annotations

import json

import pytest

from hubgate.domain.calls import Quota
from hubgate.domain.errors import Cause
from hubgate.domain.secret import Secret
from hubgate.upstreams.engines.replies.errors import (
    MAX_MESSAGE_LENGTH,
    quota,
    refusal,
    retry_after,
)
from hubgate.upstreams.http.messages import HttpReply

TOKEN = Secret("hf_ThisIsTheTokenOfTheTests")


def reply(status: int, body: object = b"", **headers: str) -> HttpReply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}, body=raw)


MEANINGS = [
    (400, {"error": "Bad Request: Invalid state"}, Cause.PAUSED, False),
    (400, {"error": "The endpoint is paused, ask a maintainer to restart it"}, Cause.PAUSED, False),
    (401, {"error": "Invalid username or password."}, Cause.WRONG_TOKEN, False),
    (401, b"", Cause.WRONG_TOKEN, False),
    (402, {"error": "You have depleted your monthly included credits."}, Cause.OUT_OF_CREDIT, False),
    (
        403,
        {"error": "This authentication method does not have sufficient permissions"},
        Cause.TOKEN_LACKS_SCOPE,
        False,
    ),
    (
        402,
        {
            "error": "You have exceeded your monthly included credits for Inference Providers. Subscribe to PRO"
        },
        Cause.OUT_OF_CREDIT,
        False,
    ),
    (
        402,
        {"error": "You have reached the free monthly usage limit for groq. Add pre-paid credits"},
        Cause.OUT_OF_CREDIT,
        False,
    ),
    (403, {"error": "You have depleted your monthly included credits."}, Cause.OUT_OF_CREDIT, False),
    (402, b"", Cause.OUT_OF_CREDIT, False),
    (
        403,
        {
            "error": "This authentication method does not have sufficient permissions to call Inference Providers "
            "on behalf of user X"
        },
        Cause.TOKEN_LACKS_SCOPE,
        False,
    ),
    (
        403,
        {"error": "Access to model meta/llama is restricted and you are not in the authorized list."},
        Cause.GATED_MODEL,
        False,
    ),
    (401, {"error": "Cannot access gated repo for url https://h/x."}, Cause.GATED_MODEL, False),
    (404, {"error": "Model this-model/does-not-exist-123 does not exist"}, Cause.MODEL_NOT_FOUND, False),
    (404, {"error": "Not Found: Model not found"}, Cause.MODEL_NOT_FOUND, False),
    (
        404,
        {"error": {"message": "The model `dummy` does not exist. Valid aliases: tiny.", "code": 404}},
        Cause.MODEL_NOT_FOUND,
        False,
    ),
    (
        400,
        {"error": {"message": "The requested model 'x' is not supported by any provider you have enabled."}},
        Cause.NOT_SERVED,
        False,
    ),
    (400, {"error": "Model x not supported by provider hf-inference"}, Cause.NOT_SERVED, False),
    (400, {"error": {"message": "The model does not support Chat Completions API"}}, Cause.WRONG_TASK, False),
    (
        400,
        {
            "error": {
                "message": "As of transformers v4.44, default chat template is no longer allowed, so you must "
                "provide a chat template if the tokenizer does not define one."
            }
        },
        Cause.WRONG_TASK,
        False,
    ),
    (424, {"error": "model is not a re-ranker model", "error_type": "Backend"}, Cause.WRONG_TASK, False),
    (
        400,
        {"error": "The following `model_kwargs` are not used by the model: ['seed'] (note: typos)"},
        Cause.INPUT_REFUSED,
        False,
    ),
    (410, b"https://api-inference.huggingface.co is no longer supported.", Cause.OLD_ADDRESS, False),
    (404, b"Not Found", Cause.MODEL_NOT_FOUND, False),
    (405, {"detail": "Method Not Allowed"}, Cause.MODEL_NOT_FOUND, False),
    (
        404,
        {"error": {"message": "The model `dummy` does not exist.", "code": 404}},
        Cause.MODEL_NOT_FOUND,
        False,
    ),
    (400, {"detail": "Server is pinned to 'tiny-llama'; requested 'dummy'."}, Cause.MODEL_NOT_FOUND, False),
    (501, {"error": {"message": "This server does not support embeddings."}}, Cause.WRONG_TASK, False),
    (400, {"error": {"message": "The model does not support Embeddings API"}}, Cause.WRONG_TASK, False),
    (
        500,
        {"error": {"message": "the current context does not support logits computation. skipping"}},
        Cause.WRONG_TASK,
        False,
    ),
    (
        500,
        {
            "error": {
                "message": "input (602 tokens) is too large to process. increase the physical batch size"
            }
        },
        Cause.INPUT_TOO_LONG,
        False,
    ),
    (
        400,
        {"error": {"message": "This model's maximum context length is 256 tokens. However, …", "code": 400}},
        Cause.INPUT_TOO_LONG,
        False,
    ),
    (
        413,
        {
            "error": "Input validation error: `inputs` must have less than 512 tokens. Given: 534",
            "error_type": "Validation",
        },
        Cause.INPUT_TOO_LONG,
        False,
    ),
    (
        400,
        {
            "error": "The size of tensor a (602) must match the size of tensor b (512) at non-singleton dimension 1"
        },
        Cause.INPUT_TOO_LONG,
        False,
    ),
    (
        400,
        {
            "error": {
                "code": 400,
                "message": "input (302 tokens) is larger than the max context size (256 tokens). skipping",
                "type": "exceed_context_size_error",
            }
        },
        Cause.INPUT_TOO_LONG,
        False,
    ),
    (
        400,
        {
            "error": {
                "code": 400,
                "message": "request (15021 tokens) exceeds the available context size (1024 tokens)",
                "type": "exceed_context_size_error",
            }
        },
        Cause.INPUT_TOO_LONG,
        False,
    ),
    (
        400,
        {
            "error": "SentenceSimilarityPipeline.__call__() missing 1 required positional argument: 'sentences'"
        },
        Cause.WRONG_TASK,
        False,
    ),
    (
        501,
        {"error": {"message": "This server does not support reranking. Start it with `--reranking`"}},
        Cause.WRONG_TASK,
        False,
    ),
    (
        500,
        {"error": {"message": "Llama model must be created with embedding=True to call this method"}},
        Cause.WRONG_TASK,
        False,
    ),
    (
        500,
        {
            "error": {
                "message": "input (992 tokens) is too large to process. increase the physical batch size"
            }
        },
        Cause.INPUT_TOO_LONG,
        False,
    ),
    (
        400,
        {
            "object": "error",
            "message": "The input (9 tokens) is longer than the model's context length (5 tokens).",
        },
        Cause.INPUT_TOO_LONG,
        False,
    ),
    (413, b"Failed to buffer the request body: length limit exceeded", Cause.INPUT_TOO_LONG, False),
    (413, {"error": "batch size 33 > maximum allowed batch size 32"}, Cause.INPUT_REFUSED, False),
    (
        422,
        {"error": "Template error: template not found", "error_type": "template_error"},
        Cause.WRONG_TASK,
        False,
    ),
    (400, {"error": ["Error in `inputs.context`: field required"]}, Cause.INPUT_REFUSED, False),
    (429, {"message": "Model is overloaded", "code": 429, "type": "Overloaded"}, Cause.OVERLOADED, True),
    (429, {"error": "This exceeds the maximum number of requests per minute"}, Cause.OVERLOADED, True),
    (503, {"error": "The router's queue is full"}, Cause.OVERLOADED, True),
    (400, {"error": "CUDA out of memory. Tried to allocate 2.00 GiB"}, Cause.UPSTREAM_FAILED, True),
    (500, {"error": {"message": "CUDA out of memory"}}, Cause.UPSTREAM_FAILED, True),
    (503, {"error": "unhealthy", "error_type": "Unhealthy"}, Cause.UPSTREAM_FAILED, True),
    (
        503,
        {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}},
        Cause.WAKING,
        True,
    ),
    (503, b"", Cause.WAKING, True),
    (502, b"<html><h1>502 Bad Gateway</h1></html>", Cause.WAKING, True),
    (504, b"", Cause.UPSTREAM_TIMEOUT, True),
    (424, {"error": "Inference failed", "error_type": "Backend"}, Cause.UPSTREAM_FAILED, True),
    (500, {"error": {"message": "EngineCore encountered an issue."}}, Cause.UPSTREAM_FAILED, True),
    (418, b"", Cause.UPSTREAM_FAILED, False),
]


@pytest.mark.parametrize(("status", "body", "cause", "retryable"), MEANINGS)
def test_error_reply_maps_to_one_cause(status: int, body: object, cause: Cause, retryable: bool) -> None:
    error = refusal(reply(status, body), TOKEN)
    assert (error.cause, error.retryable, error.status) == (cause, retryable, status)
    assert error.message
    assert error.remedy


def test_no_remedy_suggests_registering_the_endpoint_again() -> None:
    for status, body, _, _ in MEANINGS:
        assert "endpoint again" not in refusal(reply(status, body), None).remedy


def test_remedies_for_prompts_do_not_suggest_to_truncate_or_to_split() -> None:
    long = reply(400, {"error": {"message": "This model's maximum context length is 256 tokens."}})
    assert refusal(long, None).remedy == "Send shorter texts."
    assert refusal(long, None, generates=True).remedy.startswith(
        "Send a shorter prompt, or request fewer tokens"
    )
    for status, body, _, _ in MEANINGS:
        remedy = refusal(reply(status, body), None, generates=True).remedy
        assert "truncat" not in remedy
        assert "texts" not in remedy or refusal(reply(status, body), None).cause in {
            Cause.INPUT_REFUSED,
            Cause.WRONG_TASK,
        }


def test_paused_error_explains_how_to_resume() -> None:
    error = refusal(reply(400, {"error": "Bad Request: Invalid state"}), None)
    assert "paused" in error.message
    assert "Resume" in error.remedy


def test_unknown_parameter_is_named() -> None:
    words = "The following `model_kwargs` are not used by the model: ['seed', 'best_of'] (note: typos)"
    error = refusal(reply(400, {"error": words}), None)
    assert error.message == "The server does not know [seed], [best_of]."
    assert not error.server_message
    hidden = refusal(reply(400, {"error": words.replace("seed", TOKEN.reveal())}), TOKEN)
    assert hidden.message == "The server does not know […], [best_of]."
    many = words.replace("'seed'", ", ".join(["'seed'"] * 300))
    assert len(refusal(reply(400, {"error": many}), None).message) < MAX_MESSAGE_LENGTH + 50


def test_short_token_does_not_obscure_error_cause() -> None:
    error = refusal(
        reply(400, {"error": "The endpoint is paused, ask a maintainer to restart it"}), Secret("paused")
    )
    assert error.cause is Cause.PAUSED
    assert "is … " not in refusal(reply(400, {"error": "this is a test"}), Secret("a")).message


def test_missing_token_is_distinguished_from_wrong_one() -> None:
    for status, cause in ((401, Cause.WRONG_TOKEN), (403, Cause.TOKEN_LACKS_SCOPE)):
        assert refusal(reply(status), TOKEN).cause is cause
        missing = refusal(reply(status), None)
        assert missing.cause is Cause.TOKEN_MISSING
        assert "The token" not in missing.message


SAID = [
    ({"error": "a", "message": "b"}, "a"),
    ({"error": {"message": "a"}, "detail": "b"}, "a"),
    ({"error": ["a", "b"]}, "a; b"),
    ({"message": "a", "detail": "b"}, "a"),
    ({"detail": "a"}, "a"),
    ({"detail": [{"loc": ["body", "input"], "msg": "too short", "type": "x"}]}, "body.input: too short"),
    ({"error": None, "message": "a"}, "a"),
    ({"error": 3, "message": "a"}, "a"),
    ({"error": {"code": 1}, "message": "a"}, "a"),
    ("only text", "only text"),
    (b"plain\n\ntext\x00 here", "plain text here"),
    (b"<html><head><title>t</title></head><style>b{}</style><p>It &amp; that</p>", "It & that"),
    (b"\xff\xfe", "��"),
    ([1], "[1]"),
]


@pytest.mark.parametrize(("body", "said"), SAID)
def test_server_message_is_extracted_and_cleaned(body: object, said: str) -> None:
    assert refusal(reply(400, body), None).server_message == said


@pytest.mark.parametrize(
    ("words", "ended"), [("no route", "no route."), ("Why not?", "Why not?"), ("不行。", "不行。")]
)
def test_server_message_is_punctuated_before_the_remedy(words: str, ended: str) -> None:
    error = refusal(reply(500, {"error": words}), None)
    assert str(error).endswith(f"Server response (500): {ended} {error.remedy}")


@pytest.mark.parametrize("body", [b"", {"other": 1}])
def test_server_message_in_a_header_is_found(body: object) -> None:
    assert refusal(reply(400, body, x_error_message="why"), None).server_message == "why"


def test_long_server_message_is_shortened() -> None:
    said = refusal(reply(400, {"error": "word " * 1000}), None).server_message
    assert len(said) <= MAX_MESSAGE_LENGTH
    assert said.endswith("…")


@pytest.mark.parametrize(
    "body",
    [
        {"error": f"Bad header: Bearer {TOKEN.reveal()}"},
        f"<p>{TOKEN.reveal()}</p>".encode(),
        {"error": TOKEN.reveal().replace("_", "&#95;")},
        {"error": "x" * 290 + TOKEN.reveal()},
        {"error": "Bearer some-other-secret"},
        {"error": "hf_SomeoneElsesToken"},
    ],
)
def test_token_echoed_by_server_is_redacted(body: object) -> None:
    error = refusal(reply(400, body), TOKEN)
    for part in ("ThisIsTheToken", "hf_T", "some-other-secret", "SomeoneElses"):
        assert part not in f"{error} {error.server_message} {error!r}"


def test_unclosed_markup_is_processed_quickly() -> None:
    assert refusal(reply(500, b"<script" * 10_000), None).cause is Cause.UPSTREAM_FAILED


WAITS = [
    ({"retry_after": "7"}, b"", 7.0),
    ({"retry_after": "1.5"}, b"", 1.5),
    ({"retry_after": "-3"}, b"", 0.0),
    ({"retry_after": "86400"}, b"", 86_400.0),
    ({"retry_after": "nan"}, b"", None),
    ({"retry_after": "soon"}, b"", None),
    ({"retry_after": "Fri, 20 Nov 2026 10:00:30 GMT", "date": "Fri, 20 Nov 2026 10:00:00 GMT"}, b"", 30.0),
    ({"retry_after": "Fri, 20 Nov 2026 10:00:30 GMT"}, b"", None),
    ({"retry_after": "Fri, 20 Nov 99999999999 10:00:30 GMT"}, b"", None),
    ({"ratelimit": '"api";r=0;t=55'}, b"", 55.0),
    ({"ratelimit": '"burst";r=3;t=1, "api";r=0;t=55'}, b"", 55.0),
    ({"ratelimit": '"api";r=9;t=55'}, b"", None),
    ({"ratelimit": '"api";r=0'}, b"", None),
    ({}, {"error": "loading", "estimated_time": 20.0}, 20.0),
    ({}, {"error": "loading", "estimated_time": 1e9}, 31 * 86_400.0),
    ({}, {"error": "loading", "estimated_time": "soon"}, None),
    ({}, [1], None),
    ({}, b"", None),
]


@pytest.mark.parametrize(("headers", "body", "seconds"), WAITS)
def test_retry_after_is_read_from_header_or_body(
    headers: dict[str, str], body: object, seconds: float | None
) -> None:
    assert retry_after(reply(503, body, **headers)) == seconds


def test_non_retryable_error_has_no_retry_after() -> None:
    assert refusal(reply(400, {"error": "no"}, retry_after="7"), None).retry_after is None
    assert refusal(reply(429, b"", retry_after="7"), None).retry_after == 7


@pytest.mark.parametrize(
    ("header", "left"),
    [
        ('"api";r=12;t=55', Quota(12, 55)),
        ('"api";r=499;t=300, "burst";r=1;t=10', Quota(1, 10)),
        ('"api";r=0;t=7', Quota(0, 7)),
        ('"api";r=3', None),
        ("", None),
        ("12", None),
    ],
)
def test_tightest_quota_is_read_from_ratelimit_header(header: str, left: Quota | None) -> None:
    assert quota({"ratelimit": header}) == left


@pytest.mark.parametrize("status", [400, 402, 403, 429, 503])
@pytest.mark.parametrize(
    "error",
    [
        {"message": "You exceeded your current quota, please check your plan.", "type": "insufficient_quota"},
        {"message": "Please try again later.", "code": "insufficient_quota"},
        {"message": "Your credit balance is too low to access the API."},
    ],
)
def test_quota_or_credit_that_is_used_up_is_no_overload(status: int, error: dict[str, str]) -> None:
    reply = HttpReply(status=status, headers={"retry-after": "7"}, body=json.dumps({"error": error}).encode())
    found = refusal(reply, None)
    assert (found.cause, found.retryable, found.retry_after) == (Cause.OUT_OF_CREDIT, False, None)


@pytest.mark.parametrize(
    "message",
    ["Quota exceeded: 60 requests per minute", "Rate limit reached for TPM quota", "Too many requests"],
)
def test_quota_that_is_full_again_soon_is_an_overload(message: str) -> None:
    reply = HttpReply(status=429, headers={}, body=json.dumps({"error": {"message": message}}).encode())
    assert (refusal(reply, None).cause, refusal(reply, None).retryable) == (Cause.OVERLOADED, True)


def test_retry_after_of_hours_is_in_the_message() -> None:
    reply = HttpReply(status=429, headers={"retry-after": "10800"}, body=b"busy")
    assert refusal(reply, None).retry_after == 10_800
    assert refusal(reply, None).message.endswith("It accepts requests again in 3 hours.")
