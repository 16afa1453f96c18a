"""Text-generation-inference 3.3, from its OpenAPI description and `spec/huggingface.md` 2.2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer
from lookalikes.openai import CHAT, COMPLETIONS
from lookalikes.writer import Written, event, openai_reply, written

if TYPE_CHECKING:
    from lookalikes.model import Embedder, Model, ReceivedRequest


def tgi(model: Model, request: ReceivedRequest, embedder: Embedder) -> Answer:
    """One reply. Unknown parameters are ignored."""
    if request.method == "GET" and request.path in {"/health", "/ping", "/"}:
        return Answer(200)
    if model.key and request.token != model.key:
        return Answer(401)
    if request.method == "GET" and request.path == "/info":
        return Answer(200, _info(model))
    if request.method != "POST":
        return Answer(404)
    if not isinstance(request.json, dict):
        return Answer(422, "Failed to parse the request body as JSON: expected value at line 1 column 1")
    if request.path in {CHAT, COMPLETIONS}:
        return _openai(model, request)
    if request.path in {"/", "/generate", "/generate_stream"}:
        stream = request.path == "/generate_stream" or bool(request.path == "/" and request.field("stream"))
        return generated(model, request, stream=stream, wrapped=request.path == "/")
    return Answer(404)


def _info(model: Model) -> dict[str, Any]:
    return {
        "model_id": model.name,
        "model_sha": "e2d8c2f1",
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": 128,
        "max_best_of": 2,
        "max_stop_sequences": 4,
        "max_input_tokens": model.max_tokens,
        "max_total_tokens": 2 * model.max_tokens,
        "validation_workers": 2,
        "max_client_batch_size": 4,
        "router": "text-generation-router",
        "version": "3.3.6",
        "sha": None,
        "docker_label": None,
    }


def error(words: str, kind: str, status: int) -> Answer:
    """An error in its format."""
    return Answer(status, {"error": words, "error_type": kind})


def _openai(model: Model, request: ReceivedRequest) -> Answer:
    if request.path == CHAT and not model.chats:
        return error("Template error: template not found", "template_error", 422)
    stop = request.field("stop")
    if stop is not None and not isinstance(stop, list):
        return Answer(
            422, "Failed to deserialize the JSON body: stop: invalid type: string, expected a sequence"
        )
    wanted = request.field("response_format")
    if wanted and "value" not in wanted:
        return Answer(422, "Failed to deserialize the JSON body: response_format: missing field `value`")
    return openai_reply(model, request, schema=(wanted or {}).get("value"))


def generated(model: Model, request: ReceivedRequest, *, stream: bool, wrapped: bool) -> Answer:
    """A text or a stream of it; `wrapped` in a list on the Hub's routes."""
    parameters = request.field("parameters") or {}
    refused = _refusal(model, request, parameters)
    if refused:
        return refused if not stream else Answer(200, events=(event(refused.body, space=b""),))
    schema = (parameters.get("grammar") or {}).get("value")
    text = written(request.field("inputs"), parameters.get("max_new_tokens"), parameters.get("stop"), schema)
    before = request.field("inputs") if parameters.get("return_full_text") else ""
    told_top = parameters.get("top_n_tokens")
    if stream:
        return Answer(200, events=tuple(_events(text, before, told_top=told_top)))
    details = {
        "finish_reason": _reason(text),
        "generated_tokens": len(text.pieces),
        "seed": parameters.get("seed"),
        "prefill": [],
        "tokens": [_token(place, piece) for place, piece in enumerate(text.pieces)],
        **(
            {"top_tokens": [_top(place, piece) for place, piece in enumerate(text.pieces)]}
            if told_top
            else {}
        ),
    }
    said = {"generated_text": before + text.text, "details": details if parameters.get("details") else None}
    headers = {"x-prompt-tokens": str(text.prompt_tokens), "x-generated-tokens": str(len(text.pieces))}
    return Answer(200, [said] if wrapped else said, headers)


def _refusal(model: Model, request: ReceivedRequest, parameters: dict[str, Any]) -> Answer | None:
    if parameters.get("temperature") == 0:
        return error("Input validation error: `temperature` must be strictly positive", "validation", 422)
    tokens, limit = len(request.field("inputs").split()), parameters.get("max_new_tokens") or 1
    if tokens + limit > 2 * model.max_tokens:
        words = (
            f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= {2 * model.max_tokens}."
        )
        given = f" Given: {tokens} `inputs` tokens and {limit} `max_new_tokens`"
        return error(words + given, "validation", 422)
    return None


def _reason(text: Written) -> str:
    return "length" if text.finish_reason == "length" else "eos_token"


def _token(place: int, piece: str) -> dict[str, Any]:
    return {"id": place, "text": piece, "logprob": -0.5, "special": False}


def _top(place: int, piece: str) -> list[dict[str, Any]]:
    return [_token(place, piece), {"id": 99, "text": "?", "logprob": -4.0, "special": False}]


def _events(text: Written, before: str, *, told_top: int | None) -> list[bytes]:
    events = []
    for place, piece in enumerate(text.pieces, start=1):
        last = place == len(text.pieces)
        details = {
            "finish_reason": _reason(text),
            "generated_tokens": place,
            "seed": None,
            "input_length": text.prompt_tokens,
        }
        payload = {
            "index": place,
            "token": _token(place, piece),
            **({"top_tokens": _top(place, piece)} if told_top else {}),
            "generated_text": before + text.text if last else None,
            "details": details if last else None,
        }
        events.append(event(payload, space=b""))
    return events
