"""Routes for embeddings: the request body of each kind of server, and how to read the reply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from hubgate.core.vectors import in_encoding, l2_normalize
from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.errors import InvalidRequest
from hubgate.upstreams.engines.replies.embeddings import read_embeddings
from hubgate.upstreams.engines.replies.errors import quota
from hubgate.upstreams.engines.routes import REPLY_OVERHEAD, ReportedTokens, counted_tokens, json_request
from hubgate.upstreams.http.messages import HttpReply, HttpRequest

OPENAI_EMBEDDINGS = "/v1/embeddings"
POOLED_BY_HUBGATE = (
    "The server sends one vector a token; hubgate averages them, padding and special tokens included, which is only "
    "close to the model's own sentence embedding. Deploy it with the task sentence-embeddings, or behind TEI."
)
"""A warning stored in the facts of an endpoint, and recognised there: changing it would break stored endpoints."""
_MAX_BYTES_PER_NUMBER = 32
"""A float in JSON, with its comma."""
_ASSUMED_DIMENSIONS = 16_384
"""Used while an endpoint's dimensions are unknown."""
_UNSUPPORTED = (
    ("prompt_name", "has no named prompts"),
    ("dimensions", "cannot shorten its vectors"),
    ("truncate_left", "cannot truncate texts at their beginning"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRoute:
    """One route for embeddings. Implements `TextRoute`."""

    path: str
    body: Callable[[Embed, str | None], dict[str, object]]
    options: frozenset[str] = frozenset()
    """The fields of `Embed` that it supports."""
    truncates_silently: bool = False
    """It truncates texts that are too long, whether the caller wants that or not."""
    reported_tokens: ReportedTokens = ReportedTokens.UNVERIFIED
    token_vectors: bool = False
    """It may send one vector per token."""

    def request(self, url: str, model: str | None, call: Embed) -> HttpRequest:
        for option, what in _UNSUPPORTED:
            if getattr(call, option) and option not in self.options:
                raise InvalidRequest(
                    f"This endpoint's server {what}, so [{option}] cannot be honoured.",
                    remedy=f"Leave [{option}] out.",
                )
        return json_request(url, self.body(call, model))

    def max_reply_bytes(self, call: Embed, request: HttpRequest, dimensions: int | None) -> int | None:
        del request
        return None if self.token_vectors else max_vectors_bytes(len(call.texts), dimensions)

    def read(self, call: Embed, reply: HttpReply) -> Vectors:
        reading = read_embeddings(reply, len(call.texts))
        tokens, exact = counted_tokens(reply, reading.tokens, self.reported_tokens)
        vectors = Vectors(
            items=reading.items,
            encoding=reading.encoding,
            tokens=tokens,
            exact=exact,
            warnings=self._warnings(call, pooled=reading.pooled),
            quota=quota(reply.headers),
            dimensions=reading.dimensions,
        )
        if not call.normalize or "normalize" in self.options:
            return vectors
        floats = in_encoding(vectors, Encoding.F32)
        return replace(floats, items=[l2_normalize(item) for item in floats.items])

    def _warnings(self, call: Embed, *, pooled: bool) -> tuple[str, ...]:
        warnings = []
        if pooled:
            warnings.append(POOLED_BY_HUBGATE)
        if call.normalize is False and "normalize" not in self.options:
            warnings.append(
                "The server decides itself whether vectors are normalised; [normalize: false] was not passed on."
            )
        if call.truncate is False and self.truncates_silently:
            warnings.append(
                "The server truncates texts that are too long without reporting it; [truncate: false] was not passed on."
            )
        return tuple(warnings)


def max_vectors_bytes(count: int, dimensions: int | None) -> int:
    """The maximum size in bytes of a reply with `count` vectors; `dimensions` is `None` until they are known."""
    return REPLY_OVERHEAD + count * (dimensions or _ASSUMED_DIMENSIONS) * _MAX_BYTES_PER_NUMBER


def max_vectors(max_reply_bytes: int, dimensions: int | None) -> int:
    """How many vectors fit into a reply of this size; at least one."""
    return max(
        1, (max_reply_bytes - REPLY_OVERHEAD) // ((dimensions or _ASSUMED_DIMENSIONS) * _MAX_BYTES_PER_NUMBER)
    )


def tei_body(call: Embed, model: str | None) -> dict[str, object]:  # noqa: ARG001 - TEI serves one model
    """`POST /embed`. Texts that are too long are truncated unless the caller forbids it, regardless of TEI's default."""
    body: dict[str, object] = {"inputs": list(call.texts), "truncate": call.truncate is not False}
    if call.truncate_left:
        body["truncation_direction"] = "Left"
    for name in ("normalize", "prompt_name", "dimensions"):
        value = getattr(call, name)
        if value is not None:
            body[name] = value
    return body


def hf_inference_body(call: Embed, model: str | None) -> dict[str, object]:
    """The provider `hf-inference`: TEI's body, with the truncation direction in lower case."""
    body = tei_body(call, model)
    if call.truncate_left:
        body["truncation_direction"] = "left"
    return body


def openai_floats_body(call: Embed, model: str | None) -> dict[str, object]:
    """`POST /v1/embeddings` without an encoding, for servers that may not support base64."""
    body: dict[str, object] = {"model": model} if model else {}
    body["input"] = list(call.texts)
    if call.dimensions is not None:
        body["dimensions"] = call.dimensions
    return body


def openai_body(call: Embed, model: str | None) -> dict[str, object]:
    """`POST /v1/embeddings`. Base64 takes a tenth of the time of floats; a server without base64 sends floats anyway."""
    return openai_floats_body(call, model) | {"encoding_format": "base64"}


def vllm_body(call: Embed, model: str | None) -> dict[str, object]:
    """OpenAI's body; vLLM rejects texts that are too long unless the request lets it truncate them."""
    body = openai_body(call, model)
    if call.truncate is not False:
        body["truncate_prompt_tokens"] = -1
    return body


def toolkit_body(call: Embed, model: str | None) -> dict[str, object]:  # noqa: ARG001 - it serves one model
    """The only route of Hugging Face's inference toolkit. It rejects unknown options with a 400, so none is sent."""
    return {"inputs": list(call.texts)}
