"""Models on this machine: what they are, and asking them."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import time
from collections import Counter
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from hubgate.core.prompts import own_prefixes
from hubgate.domain.calls import Encoding, Rerank, SparseEmbed, Tokenize, Tokens, Vectors
from hubgate.domain.endpoint import Engine, Facts
from hubgate.domain.errors import Cause, InvalidEndpoint, InvalidRequest, RuntimeFailed
from hubgate.runtime.folder import WEIGHTS, read_folder
from hubgate.runtime.frames import EmbedTexts, Tokenized, TokenizeTexts
from hubgate.runtime.supervisor import LocalModel
from hubgate.upstreams.local_files import COMMIT, find_model

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hubgate.domain.calls import Call, Result
    from hubgate.domain.endpoint import Endpoint
    from hubgate.domain.ports import Clock, Writer
    from hubgate.domain.secret import Secret
    from hubgate.runtime.frames import Embedded, Request

_RUNTIME = ("numpy", "openvino", "tokenizers")


async def local_facts(
    model: str, *, revision: str | None = None, hf_endpoint: str | None = None, token: Secret | None = None
) -> Facts:
    """What a local model is, from its files; it is not loaded. See `find_model` for the arguments.

    Raises:
        RuntimeFailed: it is not found, cannot be run, or the runtime is not installed.
    """
    require_runtime()
    folder = await find_model(model, revision=revision, hf_endpoint=hf_endpoint, token=token)
    recipe = await asyncio.to_thread(read_folder, folder)
    return Facts(
        engine=Engine.OPENVINO,
        engine_version=version("openvino"),
        model=await asyncio.to_thread(_shown, model),
        revision=await asyncio.to_thread(_revision, folder),
        dimensions=recipe.shape.hidden,
        max_input_tokens=recipe.max_tokens,
        auto_truncate=True,
        pooling=str(recipe.pooling),
        precision="f32",
        prefixes=dict(own_prefixes(recipe.prompts)),
    )


def _shown(model: str) -> str:
    """What clients are told: of a folder its name, for no client sees a path of this machine."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model


def require_runtime() -> None:
    """Check that the libraries are installed, without importing them.

    Raises:
        RuntimeFailed: one is not.
    """
    missing = [name for name in _RUNTIME if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeFailed(
            f"Local models need {', '.join(missing)}, which is not installed.",
            remedy='Install it with: pip install "hubgate[local]"',
            cause=Cause.RUNTIME_MISSING,
        )


def _revision(folder: Path) -> str:
    """The commit of a downloaded snapshot, else a digest of the weights."""
    if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name):
        return folder.name
    with (folder / WEIGHTS).open("rb") as weights:
        return f"sha256:{hashlib.file_digest(weights, 'sha256').hexdigest()}"


class LocalSource:
    """Models on this machine, a row of `sources`. Endpoints whose model is in the same folder share one worker."""

    def __init__(self, *, hf_endpoint: str | None = None, clock: Clock = time.monotonic) -> None:
        self._hf_endpoint = hf_endpoint
        self._clock = clock
        self._models: dict[Path, LocalModel] = {}
        self._users: Counter[Path] = Counter()

    async def detect(self, endpoint: Endpoint, token: Secret | None) -> Facts:
        """What the endpoint's model is; it is downloaded if need be, and not loaded."""
        return await local_facts(endpoint.model or "", hf_endpoint=self._hf_endpoint, token=token)

    def open(self, endpoint: Endpoint, token: Secret | None) -> LocalUpstream:
        """The upstream of an endpoint, whose model is found and loaded when it is first asked."""
        find = partial(
            find_model,
            endpoint.model or "",
            revision=endpoint.facts.revision,
            hf_endpoint=self._hf_endpoint,
            token=token,
        )
        return LocalUpstream(self, find)

    def open_writer(self, endpoint: Endpoint, token: Secret | None) -> Writer:  # noqa: ARG002 - as in `Sources`
        """No local model writes.

        Raises:
            InvalidEndpoint: always.
        """
        raise InvalidEndpoint(
            f"Models on this machine embed and rerank; [{endpoint.name}] is to do {endpoint.task}.",
            remedy="Serve it with vLLM, llama.cpp or transformers serve, and register that server's URL.",
        )

    async def close(self) -> None:
        """End all workers."""
        self._users.clear()
        while self._models:
            await self._models.popitem()[1].close()

    def take(self, folder: Path) -> LocalModel:
        """The model of a folder, to be given back by `leave`."""
        require_runtime()
        self._users[folder] += 1
        return self._models.setdefault(folder, LocalModel(folder, clock=self._clock))

    async def leave(self, folder: Path) -> None:
        """Give a model back; the last one to leave ends its worker."""
        self._users[folder] -= 1
        if self._users[folder] <= 0 and folder in self._models:
            await self._models.pop(folder).close()


class LocalUpstream:
    """An `Upstream`: one endpoint's use of a local model."""

    def __init__(self, models: LocalSource, find: Callable[[], Awaitable[Path]]) -> None:
        self._models = models
        self._find = find
        self._opening = asyncio.Lock()
        self._opened: tuple[Path, LocalModel] | None = None

    async def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            RuntimeFailed: it cannot be.
        """
        await (await self._model()).ready()

    async def __call__(self, call: Call) -> Result:
        """Answer one call; vectors come as f32, with exact token counts.

        Raises:
            InvalidRequest: a text is too long and may not be cut, or an option is not the model's.
            RuntimeFailed: the model cannot be found, loaded or run.
        """
        model = await self._model()
        dimensions = (await model.ready()).dimensions
        return _result(await model.ask(_request(call, dimensions)), dimensions)

    async def close(self) -> None:
        """Leave the model."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await self._models.leave(opened[0])

    async def _model(self) -> LocalModel:
        async with self._opening:
            if self._opened is None:
                folder = await self._find()
                self._opened = folder, self._models.take(folder)
            return self._opened[1]


def _request(call: Call, dimensions: int) -> Callable[[int], Request]:
    texts = list(call.texts)
    if isinstance(call, Rerank | SparseEmbed):
        raise InvalidRequest("Local models give dense vectors alone.")
    if isinstance(call, Tokenize):
        return lambda number: TokenizeTexts(call=number, texts=texts, special=call.add_special_tokens)
    if call.dimensions not in (None, dimensions):
        raise InvalidRequest(
            f"The model gives {dimensions} dimensions, not {call.dimensions}.", remedy="Leave dimensions out."
        )
    return lambda number: EmbedTexts(
        call=number,
        texts=texts,
        normalize=call.normalize,
        truncate=call.truncate is not False,
        truncate_left=call.truncate_left is True,
        prompt_name=call.prompt_name,
    )


def _result(reply: Embedded | Tokenized, dimensions: int) -> Result:
    if isinstance(reply, Tokenized):
        return Tokens(items=reply.items)
    size = dimensions * 4
    return Vectors(
        items=[reply.vectors[start : start + size] for start in range(0, len(reply.vectors), size)],
        encoding=Encoding.F32,
        tokens=sum(reply.tokens),
        exact=True,
        truncated=sum(reply.truncated),
        text_tokens=reply.tokens,
        text_truncated=reply.truncated,
    )
