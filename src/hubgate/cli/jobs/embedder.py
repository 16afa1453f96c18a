"""A bulk job's requests to its gate, over HTTP: to `/v1/embeddings`, in base64, so that vectors stay bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from hubgate.cli.client import as_commands, segment
from hubgate.domain.endpoint import Task as ModelTask
from hubgate.domain.errors import Cause, HubgateError, StoreFailed, UpstreamError, WrongTask
from hubgate.jobs.rows import Piece, Reply
from hubgate.store.lock import running_gateway
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.messages import HttpRequest
from hubgate.upstreams.http.pool import PooledClient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hubgate.jobs.folder import Manner, Task
    from hubgate.store.lock import RunningGateway
    from hubgate.upstreams.http.messages import HttpReply

T = TypeVar("T")
_SECONDS = 900.0
"""Longer than the gate lets a bulk request wait: it answers first."""
_SAME = ("revision", "pooling", "precision")
"""What is learned of a model and must stay, beside its name and its dimensions."""


_MAX_REPLY_BYTES = 256 * 1024 * 1024
"""The gateway is trusted; a batch in chunks comes with its texts."""


class _Cut(msgspec.Struct):
    chunks: list[Piece]


class _Usage(msgspec.Struct):
    total_tokens: int
    estimated: bool = False


class _Answer(msgspec.Struct):
    """In a piece msgspec reads base64 as bytes: no float is ever made."""

    data: list[Piece]
    usage: _Usage


class _AnswerInChunks(msgspec.Struct):
    data: list[_Cut]
    usage: _Usage


class _Problem(msgspec.Struct):
    """An error in the words of either face that is asked."""

    message: str
    code: str = ""
    cause: str = ""
    remedy: str = ""


class _Error(msgspec.Struct):
    error: _Problem


class GateEmbedder:
    """Embeds through the gate that runs in a home, wherever that is after a restart. Use it as a context.

    Args:
        home: of the gate.
        task: the job's.
        manner: how it is done.
    """

    def __init__(self, home: Path, task: Task, manner: Manner) -> None:
        self._home = home
        self._task = task
        self._form: dict[str, Any] = {
            "model": task.endpoint,
            "encoding_format": "base64",
            "input_type": task.input_type,
            "token_counts": True,
        }
        if task.chunk:
            self._form["chunking_settings"] = {}  # the endpoint's own
        self._headers = {"content-type": "application/json"}
        if manner.bulk:
            self._headers["x-hubgate-class"] = "bulk"
        if not manner.cached:
            self._headers["cache-control"] = "no-store"
        self._gate: RunningGateway | None = None
        self._client = PooledClient(AddressRule(), total_seconds=_SECONDS, max_reply_bytes=_MAX_REPLY_BYTES)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def __call__(self, texts: Sequence[str]) -> Reply:
        """The vectors of texts; see the port.

        Raises:
            HubgateError: the gate refused, or is away.
        """
        body = msgspec.json.encode({**self._form, "input": texts})
        kind: type[_Answer | _AnswerInChunks] = _AnswerInChunks if self._task.chunk else _Answer
        answer = await self._ask("POST", "/v1/embeddings", body, kind)
        if len(answer.data) != len(texts):
            raise HubgateError(
                f"The gate answered {len(answer.data)} texts of {len(texts)}.", cause=Cause.WRONG_COUNT
            )
        tokens, exact = answer.usage.total_tokens, not answer.usage.estimated
        if isinstance(answer, _Answer):
            return Reply(answer.data, tokens, exact)
        pieces = [piece for cut in answer.data for piece in cut.chunks]
        return Reply(pieces, tokens, exact, [len(cut.chunks) for cut in answer.data])

    async def model(self) -> Mapping[str, Any]:
        """What the endpoint is; see the port.

        Raises:
            CommandFailed: its name is empty.
            HubgateError: there is no such endpoint, it gives no vectors, or it was never tested.
        """
        name = self._task.endpoint
        shown = await self._ask("GET", f"/api/endpoints/{segment(name)}", b"", dict[str, Any])
        if shown["task"] != ModelTask.TEXT_EMBEDDING:
            wrong = WrongTask(name, requested=ModelTask.TEXT_EMBEDDING, actual=shown["task"])
            wrong.remedy = as_commands(wrong.remedy)
            raise wrong
        if (dimensions := shown.get("dimensions")) is None:
            raise HubgateError(
                f"Endpoint [{name}] was never tested: how long its vectors are is not known.",
                remedy=f"`hubgate enable {name}` tests it.",
                cause=Cause.DISABLED,
            )
        facts = shown["facts"]
        return {
            "model": facts.get("model") or shown.get("model"),
            "dimensions": dimensions,
            **{fact: facts.get(fact) for fact in _SAME},
            "prefixes": shown.get("prefixes"),
            **({"chunking_settings": shown.get("chunking_settings")} if self._task.chunk else {}),
        }

    async def _ask(self, method: str, path: str, body: bytes, kind: type[T]) -> T:
        gate = self._gate = self._gate or self._find()
        headers = {**self._headers, "authorization": f"Bearer {gate.key}"}
        request = HttpRequest(method=method, url=gate.url + path, headers=headers, body=body)
        try:
            reply = await self._client.send(request)
        except UpstreamError as error:
            self._gate = None
            raise _away(f"The gate does not answer: {error.message}") from error
        if reply.status == 401 and self._find().key != gate.key:
            self._gate = None
            raise _away("The gate was started again.")
        if reply.status >= 400:
            raise _error(reply)
        return msgspec.json.decode(reply.body, type=kind)

    def _find(self) -> RunningGateway:
        try:
            gate = running_gateway(self._home)
        except StoreFailed as error:
            raise _away(error.message) from error
        if gate is None:
            raise _away("The gate does not run any more.")
        return gate


def _away(message: str) -> HubgateError:
    return HubgateError(
        message,
        remedy="Start it (`hubgate serve`), and run the same command again.",
        cause=Cause.GATE_STOPPING,
        retryable=True,
    )


def _error(reply: HttpReply) -> HubgateError:
    try:
        told = msgspec.json.decode(reply.body, type=_Error).error
        cause = Cause(told.code or told.cause)
    except (msgspec.MsgspecError, ValueError):
        message = f"The gate answered {reply.status}, and not in its own words: is a proxy between?"
        return HubgateError(message, cause=Cause.INTERNAL)
    after = reply.headers.get("retry-after", "")
    return HubgateError(
        as_commands(told.message),  # OpenAI's errors have their remedy there
        remedy=as_commands(told.remedy),
        cause=cause,
        retryable=reply.headers.get("x-should-retry") == "true",
        retry_after=float(after) if after.isdigit() else None,
    )
