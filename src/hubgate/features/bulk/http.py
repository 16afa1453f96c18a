"""The requests of a bulk job to hubgate: to `/v1/embeddings`, in base64, so that vectors stay bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from hubgate.domain.endpoint import OutputDtype
from hubgate.domain.endpoint import Task as ModelTask
from hubgate.domain.errors import Cause, HubgateError, StoreFailed, UpstreamError, WrongTask
from hubgate.features.bulk.engine.rows import Piece, Reply
from hubgate.store.lock import RunningGateway, running_gateway
from hubgate.terminal.client import as_commands, segment
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.messages import HttpRequest
from hubgate.upstreams.http.pool import PooledClient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hubgate.features.bulk.folder import RunOptions, Task
    from hubgate.upstreams.http.messages import HttpReply

T = TypeVar("T")
_TIMEOUT_SECONDS = 900.0
"""Longer than hubgate lets a bulk request wait, so that it replies first."""
_FIXED_FACTS = ("revision", "pooling", "precision")
"""Facts of a model that must not change during a job, beside its name and dimensions."""
_MAX_REPLY_BYTES = 256 * 1024 * 1024
"""hubgate is trusted, and a reply with chunks contains their texts."""


class _Chunks(msgspec.Struct):
    chunks: list[Piece]


class _Usage(msgspec.Struct):
    total_tokens: int
    estimated: bool = False


class _Vectors(msgspec.Struct):
    """msgspec decodes base64 to bytes in a piece, so no float is ever created."""

    data: list[Piece]
    usage: _Usage


class _ChunkedVectors(msgspec.Struct):
    data: list[_Chunks]
    usage: _Usage


class _ErrorBody(msgspec.Struct):
    """An error of `/v1`, which has a code, or of `/api`, which has a cause and a remedy."""

    message: str
    code: str = ""
    cause: str = ""
    remedy: str = ""


class _ErrorReply(msgspec.Struct):
    error: _ErrorBody


class GatewayEmbedder:
    """Embeds through the gateway that runs in a home, also after it has restarted at another port. A context manager."""

    def __init__(self, place: Path | RunningGateway, task: Task, options: RunOptions) -> None:
        """Ask the gateway that runs in a home, or a given one."""
        self._place = place
        self._task = task
        self._fields: dict[str, Any] = {
            "model": task.endpoint,
            "encoding_format": "base64",
            "input_type": task.input_type,
            "token_counts": True,
        }
        if task.output_dtype is not OutputDtype.FLOAT:  # a running gateway may be older than the field
            self._fields["output_dtype"] = task.output_dtype
        if task.chunk:
            self._fields["chunking_settings"] = {}  # the endpoint's own settings
        self._headers = {"content-type": "application/json"}
        if options.bulk:
            self._headers["x-hubgate-class"] = "bulk"
        if not options.cached:
            self._headers["cache-control"] = "no-store"
        self._gateway: RunningGateway | None = None
        self._client = PooledClient(
            AddressRule(), total_seconds=_TIMEOUT_SECONDS, max_reply_bytes=_MAX_REPLY_BYTES
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def __call__(self, texts: Sequence[str]) -> Reply:
        """Embed texts; see `Embedder`.

        Raises:
            HubgateError: hubgate rejected the request, or is away.
        """
        body = msgspec.json.encode({**self._fields, "input": texts})
        kind: type[_Vectors | _ChunkedVectors] = _ChunkedVectors if self._task.chunk else _Vectors
        reply = await self._send("POST", "/v1/embeddings", body, kind)
        if len(reply.data) != len(texts):
            raise HubgateError(
                f"hubgate returned vectors for {len(reply.data)} of {len(texts)} texts.",
                cause=Cause.WRONG_COUNT,
            )
        tokens, exact = reply.usage.total_tokens, not reply.usage.estimated
        if isinstance(reply, _Vectors):
            return Reply(reply.data, tokens, exact)
        pieces = [piece for text in reply.data for piece in text.chunks]
        return Reply(pieces, tokens, exact, [len(text.chunks) for text in reply.data])

    async def model(self) -> Mapping[str, Any]:
        """The facts of the endpoint's model; see `Embedder`.

        Raises:
            CommandFailed: the endpoint's name is empty.
            HubgateError: the endpoint does not exist, does not embed, or was never tested.
        """
        name = self._task.endpoint
        shown = await self._send("GET", f"/api/endpoints/{segment(name)}", b"", dict[str, Any])
        if shown["task"] != ModelTask.TEXT_EMBEDDING:
            wrong = WrongTask(name, requested=ModelTask.TEXT_EMBEDDING, actual=shown["task"])
            wrong.remedy = as_commands(wrong.remedy)
            raise wrong
        if (dimensions := shown.get("dimensions")) is None:
            raise HubgateError(
                f"Endpoint [{name}] was never tested, so its dimensions are unknown.",
                remedy=f"Test it with `hubgate enable {name}`.",
                cause=Cause.DISABLED,
            )
        facts = shown["facts"]
        return {
            "model": facts.get("model") or shown.get("model"),
            "dimensions": dimensions,
            **{fact: facts.get(fact) for fact in _FIXED_FACTS},
            "prefixes": shown.get("prefixes"),
            **({"chunking_settings": shown.get("chunking_settings")} if self._task.chunk else {}),
        }

    async def _send(self, method: str, path: str, body: bytes, kind: type[T]) -> T:
        gateway = self._gateway = self._gateway or self._find_gateway()
        headers = {**self._headers, "authorization": f"Bearer {gateway.key}"}
        request = HttpRequest(method=method, url=gateway.url + path, headers=headers, body=body)
        try:
            reply = await self._client.send(request)
        except UpstreamError as error:
            self._gateway = None
            raise _unavailable(f"hubgate does not respond: {error.message}") from error
        if reply.status == 401 and self._find_gateway().key != gateway.key:
            self._gateway = None
            raise _unavailable("hubgate was restarted.")
        if reply.status >= 400:
            raise _error(reply)
        return msgspec.json.decode(reply.body, type=kind)

    def _find_gateway(self) -> RunningGateway:
        if isinstance(self._place, RunningGateway):
            return self._place
        try:
            gateway = running_gateway(self._place)
        except StoreFailed as error:
            raise _unavailable(error.message) from error
        if gateway is None:
            raise _unavailable("hubgate is no longer running.")
        return gateway


def _unavailable(message: str) -> HubgateError:
    return HubgateError(
        message,
        remedy="Start it (`hubgate serve`), and run the same command again.",
        cause=Cause.GATE_STOPPING,
        retryable=True,
    )


def _error(reply: HttpReply) -> HubgateError:
    try:
        error = msgspec.json.decode(reply.body, type=_ErrorReply).error
        cause = Cause(error.code or error.cause)
    except (msgspec.MsgspecError, ValueError):
        message = (
            f"An unknown reply with status {reply.status}, not from hubgate: check for a proxy in between."
        )
        return HubgateError(message, cause=Cause.INTERNAL)
    after = reply.headers.get("retry-after", "")
    return HubgateError(
        as_commands(error.message),  # OpenAI's errors contain the remedy
        remedy=as_commands(error.remedy),
        cause=cause,
        retryable=reply.headers.get("x-should-retry") == "true",
        retry_after=float(after) if after.isdigit() else None,
    )
