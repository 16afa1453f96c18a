"""Asking a worker of the tiny model in the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tiny_model import HIDDEN, Array, ids_of, reference, write_tiny_model

from hubgate.runtime.protocol import Embedded, EmbedTexts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hubgate.runtime.process import WorkerProcess
    from hubgate.runtime.supervisor import LocalModel


class Folder:
    """A tiny model and what its vectors must be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.weights = write_tiny_model(path)

    def vector(self, text: str) -> Array:
        return reference(self.weights, ids_of(text))


def embed(
    *texts: str, normalize: bool | None = False, prompt: str | None = None
) -> Callable[[int], EmbedTexts]:
    return lambda call: EmbedTexts(call, list(texts), normalize, True, False, prompt)


async def vectors(model: LocalModel, *texts: str) -> Array:
    reply = await model.ask(embed(*texts))
    assert isinstance(reply, Embedded)
    return np.frombuffer(reply.vectors, "<f4").reshape(-1, HIDDEN)


def process_of(model: LocalModel) -> WorkerProcess:
    assert model._start is not None
    return model._start.result()
