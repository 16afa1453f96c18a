"""Errors in the formats of text-embeddings-inference (TEI) and text-generation-inference (TGI)."""

from __future__ import annotations

from hubgate.domain.errors import Cause, HubgateError, InvalidRequest
from hubgate.web.http.errors import EmptyBatch
from hubgate.web.openai import errors as openai

_TGI_TYPE = {"Empty": "validation", "Validation": "validation", "Overloaded": "overloaded"}


def render_tei(error: HubgateError, status: int) -> tuple[int, object]:
    """`{"error", "error_type"}`; huggingface_hub and huggingface.js show `error`."""
    status, kind = _tei_status(error, status)
    return status, {"error": str(error), "error_type": kind}


def render_tgi(error: HubgateError, status: int) -> tuple[int, object]:
    """`{"error", "error_type"}`; huggingface_hub selects its exception by the type."""
    status, kind = _tei_status(error, status)
    return status, {"error": str(error), "error_type": _TGI_TYPE.get(kind, "generation")}


def render_chat(error: HubgateError, status: int) -> tuple[int, object]:
    """OpenAI's format below `/hf/{name}`: with the field that Elasticsearch reads in a stream, and without 503."""
    if status == 503:
        status = 429 if error.retryable else 424
    status, body = openai.render(error, status)
    return status, {"error": {**body["error"], "http_status_code": status}}


def _tei_status(error: HubgateError, status: int) -> tuple[int, str]:
    if isinstance(error, EmptyBatch):
        return 400, "Empty"
    if error.cause is Cause.INPUT_TOO_LONG:
        return 413, "Validation"
    if isinstance(error, InvalidRequest):
        return 422, "Validation"
    if status == 429 or (status == 503 and error.retryable):
        # Not 503: huggingface.js retries that immediately and forever.
        return 429, "Overloaded"
    if status == 503:
        return 424, "Backend"
    return status, "Validation" if status < 424 else "Backend"
