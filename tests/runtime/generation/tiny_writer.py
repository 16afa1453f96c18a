"""The tiny models that generate text, what transformers generates with them, and calls to their workers."""

from __future__ import annotations

import gzip
import json
import shutil
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hubgate.runtime.machine import CpuShare
from hubgate.runtime.process import worker_command
from hubgate.runtime.protocol import GenerateText, SamplingOptions, TextPiece
from hubgate.runtime.supervisor import LocalModel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

DATA = Path(__file__).parents[2] / "data" / "tiny_writers"
ANSWERS: Any = json.loads((DATA / "answers.json").read_text("utf-8"))
"""By `scripts/record_tiny_writers.py`."""


class Text(NamedTuple):
    """A generated text and its last piece."""

    text: str
    last: TextPiece


def unpack(name: str, folder: Path) -> Path:
    """Write the folder of a model as optimum exports it."""
    folder.mkdir(parents=True)
    for file in (DATA / name).iterdir():
        if file.suffix == ".gz":
            (folder / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        else:
            shutil.copyfile(file, folder / file.name)
    return folder


def change(folder: Path, name: str, **values: Any) -> None:
    """Change values of a JSON file."""
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **values}), "utf-8")


def local_writer(folder: Path, *, lanes: int = 0) -> LocalModel:
    """The model of a folder, in a worker process."""
    share = CpuShare(lanes=lanes)
    return LocalModel(folder, command=partial(worker_command, share=share, generates=True))


def pieces(model: LocalModel, prompt: str, *, caller: str = "-", **options: Any) -> AsyncGenerator[TextPiece]:
    """Generate a text; greedily, unless the options say otherwise."""
    sampling = SamplingOptions(**options)
    return model.stream(lambda call: GenerateText(call, prompt, options=sampling, caller=caller))


async def written(model: LocalModel, prompt: str, **options: Any) -> Text:
    """Generate a whole text."""
    texts = []
    async with aclosing(pieces(model, prompt, **options)) as stream:
        async for piece in stream:
            texts.append(piece.text)
    return Text("".join(texts), piece)
