"""Models on this machine: which are open, and asking them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hubgate.domain.calls import (
    Call,
    Embed,
    Encoding,
    Rerank,
    Result,
    Scores,
    SparseEmbed,
    Tokenize,
    Tokens,
    Vectors,
)
from hubgate.domain.endpoint import Facts, Precision, Target
from hubgate.domain.errors import Cause, InvalidEndpoint, InvalidRequest
from hubgate.domain.ports import Clock, TextGenerator
from hubgate.runtime.machine import CpuShare
from hubgate.runtime.model.excerpt import max_characters
from hubgate.runtime.process import worker_command
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
from hubgate.upstreams.local.facts import local_facts, require_runtime
from hubgate.upstreams.local.files import find_model
from hubgate.upstreams.local.golden import GOLDEN, GOLDEN_TEXT, check_golden


class Loaded(NamedTuple):
    """What endpoints share a worker by: a folder, and the precision that it is run in."""

    folder: Path
    precision: Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """What the operator says of all local models."""

    hf_endpoint: str | None = None
    """The Hub's address where it is another than the usual one."""
    share: CpuShare = CpuShare()  # noqa: RUF009 - frozen
    idle_seconds: float | None = None
    """After so many without a call a model's worker ends; `None` lets it stay."""


class LocalSource:
    """Models on this machine, a row of `sources`. Endpoints whose model is in the same folder share one worker."""

    def __init__(self, settings: LocalSettings | None = None, *, clock: Clock = time.monotonic) -> None:
        self._settings = settings or LocalSettings()
        self._clock = clock
        self._models: dict[Loaded, LocalModel] = {}
        self._users: Counter[Loaded] = Counter()
        self._names: dict[Loaded, str] = {}

    async def detect(self, target: Target) -> Facts:
        """What the endpoint's model is; it is downloaded if need be.

        It is loaded only where nothing else tells in which precision it computes.
        """
        endpoint = target.endpoint
        folder, facts = await local_facts(target, hf_endpoint=self._settings.hf_endpoint)
        if endpoint.precision is Precision.F32:
            return facts
        loaded = Loaded(folder, endpoint.precision)
        model = self.take(loaded, facts.model)
        try:
            return replace(facts, precision=(await model.ready()).precision)
        finally:
            await self.leave(loaded)

    def open(self, target: Target) -> LocalUpstream:
        """The upstream of an endpoint, whose model is found and loaded when it is first asked."""
        return LocalUpstream(self, target, self._settings.hf_endpoint)

    def open_generator(self, target: Target) -> TextGenerator:
        """No local model writes.

        Raises:
            InvalidEndpoint: always.
        """
        endpoint = target.endpoint
        raise InvalidEndpoint(
            f"Models on this machine embed and rerank; [{endpoint.name}] is to do {endpoint.task}.",
            remedy="Serve it with vLLM, llama.cpp or transformers serve, and register that server's URL.",
        )

    def memory(self) -> Mapping[tuple[str, str], int]:
        """Bytes of memory of the workers that run, by the name of their model and its precision."""
        sizes: Counter[tuple[str, str]] = Counter()
        for loaded, model in self._models.items():
            if size := model.memory:
                sizes[self._names[loaded], loaded.precision] += size
        return sizes

    async def close(self) -> None:
        """End all workers."""
        self._users.clear()
        while self._models:
            await self._models.popitem()[1].close()

    def take(self, loaded: Loaded, name: str | None) -> LocalModel:
        """The model of a folder, to be given back by `leave`; `name` is what it is called in the metrics."""
        require_runtime()
        self._users[loaded] += 1
        self._names[loaded] = name or loaded.folder.name
        if loaded not in self._models:
            command = partial(worker_command, precision=loaded.precision, share=self._settings.share)
            self._models[loaded] = LocalModel(
                loaded.folder, clock=self._clock, command=command, idle_seconds=self._settings.idle_seconds
            )
        return self._models[loaded]

    async def leave(self, loaded: Loaded) -> None:
        """Give a model back; the last one to leave ends its worker."""
        self._users[loaded] -= 1
        if self._users[loaded] <= 0 and loaded in self._models:
            await self._models.pop(loaded).close()


class LocalUpstream:
    """An `Upstream`: one endpoint's use of a local model."""

    def __init__(self, models: LocalSource, target: Target, hf_endpoint: str | None) -> None:
        endpoint = target.endpoint
        self._models = models
        self._called = endpoint.facts.model
        self._golden = endpoint.facts.model if endpoint.facts.model in GOLDEN else None
        # What was chosen when it was registered stays: nobody's vectors change because the machine does.
        self._precision = Precision(endpoint.facts.precision or endpoint.precision)
        self._find = partial(
            find_model,
            endpoint.model or "",
            revision=endpoint.facts.revision,
            hf_endpoint=hf_endpoint,
            token=target.token,
        )
        self._opening = asyncio.Lock()
        self._opened: tuple[Loaded, LocalModel] | None = None

    async def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            RuntimeFailed: it cannot be.
        """
        await (await self._model()).ready()

    async def __call__(self, call: Call) -> Result:
        """Answer one call; vectors come as f32, all token counts are exact.

        Raises:
            InvalidRequest: a text is too long and may not be cut, or the model cannot do what is asked.
            RuntimeFailed: the model cannot be found, loaded or run.
        """
        model = await self._model()
        ready = await model.ready()
        return _result(await model.ask(_request(call, ready)), ready.width)

    async def close(self) -> None:
        """Leave the model."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await self._models.leave(opened[0])

    async def _model(self) -> LocalModel:
        async with self._opening:
            if self._opened is None:
                loaded = Loaded(await self._find(), self._precision)
                model = self._models.take(loaded, self._called)
                try:
                    await self._check(model)
                except BaseException:
                    await self._models.leave(loaded)
                    raise
                self._opened = loaded, model
            return self._opened[1]

    async def _check(self, model: LocalModel) -> None:
        """A model that goes by a well-known name is held against it."""
        if self._golden is not None:
            answer = await model.ask(lambda call: EmbedTexts(call, [GOLDEN_TEXT], None, True, False, None))
            assert isinstance(answer, Embedded)  # noqa: S101 - as it was asked
            check_golden(self._golden, answer.vectors)


def _request(call: Call, ready: Ready) -> Callable[[int], Request]:
    context, most = call.context, max_characters(ready.max_tokens)
    match call:
        case Tokenize():
            texts, special = list(call.texts), call.add_special_tokens
            return lambda number: TokenizeTexts(number, texts, special, context.caller, context.bulk)
        case Rerank():
            query, *texts = (_bounded(text, most) for text in (call.query, *call.texts))
            truncate = call.truncate is not False
            return lambda number: RankTexts(
                number, query, texts, truncate, call.raw_scores, context.caller, context.bulk
            )
        case SparseEmbed():
            raise InvalidRequest(
                "Local models give no sparse vectors.",
                remedy="Serve the model with text-embeddings-inference, and register that server's URL.",
                cause=Cause.WRONG_TASK,
            )
        case _:
            left = call.truncate_left is True
            texts = [_bounded(text, most, left=left) for text in call.texts]
            return partial(_embed_texts, call, ready.width, texts)


def _bounded(text: str, most: int, *, left: bool = False) -> str:
    """A text that is still too long for the worker if it was, and no longer than that: megabytes in its pipe hold up others."""
    if len(text) <= most + 1:
        return text
    return text[-most - 1 :] if left else text[: most + 1]


def _embed_texts(call: Embed, width: int, texts: list[str], number: int) -> EmbedTexts:
    if call.dimensions not in (None, width):
        raise InvalidRequest(
            f"The model gives {width} dimensions, not {call.dimensions}.", remedy="Leave dimensions out."
        )
    return EmbedTexts(
        call=number,
        texts=texts,
        normalize=call.normalize,
        truncate=call.truncate is not False,
        truncate_left=call.truncate_left is True,
        prompt_name=call.prompt_name,
        caller=call.context.caller,
        bulk=call.context.bulk,
    )


def _result(reply: CallReply, width: int) -> Result:
    match reply:
        case Tokenized():
            return Tokens(items=reply.items)
        case Ranked():
            return Scores(items=reply.scores, tokens=sum(reply.tokens), exact=True, warnings=_cut(reply))
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


def _cut(reply: Ranked) -> tuple[str, ...]:
    """Scores have no other place to tell it."""
    cut = sum(reply.truncated)
    return (f"{cut} of {len(reply.scores)} texts were cut to what the model reads.",) if cut else ()
