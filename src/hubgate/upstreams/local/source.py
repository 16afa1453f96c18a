"""Models on this machine: which are loaded, and calls to them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hubgate.domain.calls import (
    TASK_OF_CALL,
    Call,
    Embed,
    Encoding,
    Rerank,
    Result,
    Scores,
    Tokenize,
    Tokens,
    Vectors,
)
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Facts, Precision, Target
from hubgate.domain.errors import Cause, InvalidRequest
from hubgate.domain.ports import Clock
from hubgate.runtime.machine import CpuShare, multiplies_int8
from hubgate.runtime.model.excerpt import max_characters
from hubgate.runtime.process import WorkerProcess, worker_command
from hubgate.runtime.protocol import (
    CallReply,
    Embedded,
    EmbedTexts,
    Ranked,
    RankTexts,
    Ready,
    Request,
    Tokenized,
    TokenizeTexts,
)
from hubgate.runtime.supervisor import LocalModel
from hubgate.upstreams.local.facts import (
    REFERENCE_TEXT,
    REFERENCE_VECTORS,
    check_reference,
    local_facts,
    require_runtime,
)
from hubgate.upstreams.local.files import find_model
from hubgate.upstreams.local.generator import LocalGenerator


class ModelKey(NamedTuple):
    """Endpoints with the same key share a worker."""

    folder: Path
    precision: Precision
    generates: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """The settings of all local models."""

    hf_endpoint: str | None = None
    """The Hub's URL, if it is not the default."""
    share: CpuShare = CpuShare()  # noqa: RUF009 - frozen
    idle_seconds: float | None = None
    """A worker without calls stops after this time; `None` for never."""
    shared: Path | None = None
    """A folder in which the gateways of this machine find each other's workers; `None` for workers of its own."""


class LocalSource:
    """Models on this machine. Endpoints with the same folder and precision share one worker."""

    def __init__(self, settings: LocalSettings | None = None, *, clock: Clock = time.monotonic) -> None:
        self._settings = settings or LocalSettings()
        self._clock = clock
        self._models: dict[ModelKey, LocalModel] = {}
        self._use_counts: Counter[ModelKey] = Counter()
        self._names: dict[ModelKey, str] = {}

    async def detect(self, target: Target) -> Facts:
        """The facts of the endpoint's model, which is downloaded if needed. It is loaded only to choose a precision."""
        endpoint = target.endpoint
        folder, facts = await local_facts(target, hf_endpoint=self._settings.hf_endpoint)
        if endpoint.precision is Precision.F32:
            return facts
        key = ModelKey(folder, endpoint.precision, _generates(endpoint))
        model = self.acquire(key, facts.model)
        try:
            ready = await model.ready()
            return replace(
                facts,
                precision=ready.precision,
                precision_self_test=ready.self_test,
                warnings=(*facts.warnings, *_warnings(endpoint.precision)),
            )
        finally:
            await self.release(key)

    def open(self, target: Target) -> LocalUpstream:
        """The upstream of an endpoint. The first call finds and loads the model."""
        return LocalUpstream(self, target, self._settings.hf_endpoint)

    def open_generator(self, target: Target) -> LocalGenerator:
        """The generator of an endpoint. The first call finds and loads the model."""
        endpoint = target.endpoint
        opened = _OpenModel(self, target, self._settings.hf_endpoint)
        return LocalGenerator(opened.get, opened.release, endpoint.facts.model or endpoint.name)

    def memory(self) -> Mapping[tuple[str, str], int]:
        """The bytes of memory of each worker, by the name and precision of its model."""
        sizes: Counter[tuple[str, str]] = Counter()
        for key, model in self._models.items():
            if size := model.memory:
                sizes[self._names[key], key.precision] += size
        return sizes

    async def close(self) -> None:
        """Stop all workers."""
        self._use_counts.clear()
        while self._models:
            await self._models.popitem()[1].close()

    def acquire(self, key: ModelKey, name: str | None) -> LocalModel:
        """A model, to be released after use; `name` is for the metrics."""
        require_runtime(generates=key.generates)
        self._use_counts[key] += 1
        self._names[key] = name or key.folder.name
        if key not in self._models:
            shared = self._settings.shared
            command = partial(
                worker_command,
                precision=key.precision,
                share=self._settings.share,
                generates=key.generates,
            )
            self._models[key] = LocalModel(
                key.folder,
                clock=self._clock,
                command=command,
                idle_seconds=self._settings.idle_seconds,
                start=WorkerProcess.start if shared is None else partial(_attach, shared),
            )
        return self._models[key]

    async def release(self, key: ModelKey) -> None:
        """Release a model; the last release stops its worker."""
        self._use_counts[key] -= 1
        if self._use_counts[key] <= 0 and key in self._models:
            await self._models.pop(key).close()


class _OpenModel:
    """The model of an endpoint, found and loaded when it is first used."""

    def __init__(self, models: LocalSource, target: Target, hf_endpoint: str | None) -> None:
        endpoint = target.endpoint
        self._models = models
        self._name = endpoint.facts.model
        self._generates = _generates(endpoint)
        # The precision chosen at registration stays: vectors do not change with the machine.
        self._precision = Precision(endpoint.facts.precision or endpoint.precision)
        self._find = partial(
            find_model,
            endpoint.model or "",
            revision=endpoint.facts.revision,
            hf_endpoint=hf_endpoint,
            token=target.token,
            generates=self._generates,
        )
        self._opening = asyncio.Lock()
        self._opened: tuple[ModelKey, LocalModel] | None = None

    async def get(self) -> LocalModel:
        """Raises: RuntimeFailed: it cannot be found, or is another one than its name says."""
        async with self._opening:
            if self._opened is None:
                key = ModelKey(await self._find(), self._precision, self._generates)
                model = self._models.acquire(key, self._name)
                try:
                    await self._check(model)
                except BaseException:
                    await self._models.release(key)
                    raise
                self._opened = key, model
            return self._opened[1]

    async def release(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await self._models.release(opened[0])

    async def _check(self, model: LocalModel) -> None:
        """Check that a model with a well-known name is that model."""
        if self._name in REFERENCE_VECTORS:
            reply = await model.request(
                lambda call: EmbedTexts(call, [REFERENCE_TEXT], None, True, False, None)
            )
            assert isinstance(reply, Embedded)  # noqa: S101 - the reply to EmbedTexts
            check_reference(self._name, reply.vectors)


class LocalUpstream:
    """One endpoint's use of a local model. Implements `domain.ports.Upstream`."""

    def __init__(self, models: LocalSource, target: Target, hf_endpoint: str | None) -> None:
        self._model = _OpenModel(models, target, hf_endpoint)

    async def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            RuntimeFailed: it cannot be loaded.
        """
        await (await self._model.get()).ready()

    async def __call__(self, call: Call) -> Result:
        """Call the model. Vectors are f32, all token counts are exact.

        Raises:
            InvalidRequest: a text is too long and must not be truncated, or the model does not support the call.
            RuntimeFailed: the model cannot be found, loaded or run.
        """
        model = await self._model.get()
        ready = await model.ready()
        return _result(await model.request(_request(call, ready)), ready.width)

    async def close(self) -> None:
        """Release the model."""
        await self._model.release()


async def _attach(folder: Path, command: Sequence[str]) -> WorkerProcess:
    from hubgate.runtime.attaching import attach  # noqa: PLC0415 - one gateway does not need it

    return await attach(folder, command)


def _warnings(precision: Precision) -> tuple[str, ...]:
    if precision is not Precision.INT8 or multiplies_int8():
        return ()
    return (
        "int8 saves memory but no time on this machine: its processor has neither AVX512-VNNI nor AVX-VNNI.",
    )


def _generates(endpoint: Endpoint) -> bool:
    return endpoint.task in GENERATION_TASKS


def _request(call: Call, ready: Ready) -> Callable[[int], Request]:
    context, limit = call.context, max_characters(ready.max_tokens)
    match call:
        case Tokenize():
            texts, special = list(call.texts), call.add_special_tokens
            return lambda number: TokenizeTexts(number, texts, special, context.caller, context.bulk)
        case Rerank():
            query, *texts = (_bounded(text, limit) for text in (call.query, *call.texts))
            truncate = call.truncate is not False
            return lambda number: RankTexts(
                number,
                query,
                texts,
                truncate,
                call.raw_scores,
                context.caller,
                context.bulk,
                call.instruction,
            )
        case Embed():
            left = ready.truncate_left if call.truncate_left is None else call.truncate_left
            texts = [_bounded(text, limit, left=left) for text in call.texts]
            return partial(_embed_texts, call, ready.width, texts, left)
        case _:
            raise InvalidRequest(
                f"Local models do not support {TASK_OF_CALL[type(call)]}.",
                remedy="Serve the model with text-embeddings-inference, and register that server's URL.",
                cause=Cause.WRONG_TASK,
            )


def _bounded(text: str, limit: int, *, left: bool = False) -> str:
    """Cut a text far beyond the model's limit, so that it does not block the worker's pipe. It stays over the limit."""
    if len(text) <= limit + 1:
        return text
    return text[-limit - 1 :] if left else text[: limit + 1]


def _embed_texts(call: Embed, width: int, texts: list[str], left: bool, number: int) -> EmbedTexts:
    if call.dimensions not in (None, width):
        raise InvalidRequest(
            f"The model's vectors have {width} dimensions, not {call.dimensions}.",
            remedy="Leave dimensions out.",
        )
    return EmbedTexts(
        call=number,
        texts=texts,
        normalize=call.normalize,
        truncate=call.truncate is not False,
        truncate_left=left,
        prompt_name=call.prompt_name,
        caller=call.context.caller,
        bulk=call.context.bulk,
    )


def _result(reply: CallReply, width: int) -> Result:
    match reply:
        case Tokenized():
            return Tokens(items=reply.items)
        case Ranked():
            return Scores(
                items=reply.scores, tokens=sum(reply.tokens), exact=True, warnings=_truncation_warnings(reply)
            )
        case _:
            size = width * 4
            return Vectors(
                items=[reply.vectors[start : start + size] for start in range(0, len(reply.vectors), size)],
                encoding=Encoding.F32,
                tokens=sum(reply.tokens),
                exact=True,
                truncated=sum(reply.truncated),
                text_tokens=reply.tokens,
                text_truncated=reply.truncated,
            )


def _truncation_warnings(reply: Ranked) -> tuple[str, ...]:
    """Scores have no field for truncation."""
    count = sum(reply.truncated)
    return (f"{count} of {len(reply.scores)} texts were truncated to the model's limit.",) if count else ()
