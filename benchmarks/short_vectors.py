"""Short vectors: what a search with them finds of what it finds with floats, and what rendering a vector costs.

    python benchmarks/short_vectors.py [--texts 9000] [--rounds 7]

Texts are the paragraphs of the docstrings of Python's standard library, embedded with all-MiniLM-L6-v2 and its real
weights. The first 1,000 are queries, the others are searched exhaustively. recall@10 is the share of the ten best texts
with float vectors that are among the ten best with short ones.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import math
import random
import statistics
import sysconfig
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import orjson
from support.table import show

from hubgate.core.quantization import VectorFormat, quantize
from hubgate.core.vectors import floats
from hubgate.domain.calls import Encoding, Vectors
from hubgate.domain.endpoint import OutputDtype, Precision
from hubgate.runtime.process import worker_command
from hubgate.runtime.protocol import Embedded, EmbedTexts
from hubgate.runtime.supervisor import LocalModel
from hubgate.upstreams.local.files import packaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Array: TypeAlias = "np.ndarray[Any, Any]"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
QUERIES, BEST, BATCH = 1000, 10, 128


def paragraphs() -> Iterator[str]:
    """Of at least 60 characters, without examples in code."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if {"site-packages", "test", "tests", "idle_test", "lib2to3"} & set(path.parts):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                    text = " ".join(paragraph.split())[:600]
                    if len(text) >= 60 and not text.startswith(">>>"):
                        yield text


async def embed(texts: list[str]) -> Array:
    """The vectors of the texts, in f32."""
    folder = packaged(MODEL)
    if folder is None:
        raise SystemExit("The weights of all-MiniLM-L6-v2 are not installed: make install")
    model = LocalModel(folder, command=partial(worker_command, precision=Precision.F32))
    parts = []
    for at in range(0, len(texts), BATCH):
        batch = texts[at : at + BATCH]
        reply = await model.request(
            lambda call, batch=batch: EmbedTexts(call, batch, None, True, False, None)  # type: ignore[misc]
        )
        assert isinstance(reply, Embedded)
        parts.append(np.frombuffer(reply.vectors, "<f4").reshape(len(batch), -1))
    await model.close()
    return np.concatenate(parts)


class Search:
    """An exhaustive search with the first vectors for the best of the others."""

    def __init__(self, vectors: Array) -> None:
        self.vectors = vectors
        self.scores = vectors[:QUERIES] @ vectors[QUERIES:].T
        self.reference = _best(self.scores, BEST)

    def recall(self, short: Array, candidates: int = BEST) -> float:
        """With inner products of short vectors; more candidates than needed are ranked again with the floats."""
        found = _best(short[:QUERIES] @ short[QUERIES:].T, candidates)
        if candidates > BEST:
            again = _best(np.take_along_axis(self.scores, found, axis=1), BEST)
            found = np.take_along_axis(found, again, axis=1)
        pairs = zip(found, self.reference, strict=True)
        return statistics.mean(len(np.intersect1d(one, other)) / BEST for one, other in pairs)


def _best(scores: Array, count: int) -> Array:
    return np.argpartition(-scores, count, axis=1)[:, :count]


def quantized(vectors: Array, dtype: OutputDtype) -> Array:
    """As hubgate quantizes them, in numbers whose inner products rank as the type's usual metric does."""
    data = [np.frombuffer(quantize(vector.tobytes(), dtype), np.uint8) for vector in vectors]
    match dtype:
        case OutputDtype.INT8:
            return np.stack(data).view(np.int8).astype(np.float32)
        case OutputDtype.UINT8:
            return np.stack(data).astype(np.float32) - 128
        case _:
            flip = np.uint8(0x80 if dtype is OutputDtype.BINARY else 0)
            bits = np.unpackbits(np.bitwise_xor(np.stack(data), flip), axis=1)[:, : vectors.shape[1]]
            return np.where(bits, np.float32(1), np.float32(-1))


def show_recall(search: Search) -> None:
    vectors = search.vectors
    dimensions = vectors.shape[1]
    rows = [("float", dimensions * 4, "1")]
    for dtype in (OutputDtype.INT8, OutputDtype.UINT8, OutputDtype.BINARY, OutputDtype.UBINARY):
        size = len(quantize(vectors[0].tobytes(), dtype))
        rows.append((dtype, size, f"{search.recall(quantized(vectors, dtype)):.3f}"))
    bits = quantized(vectors, OutputDtype.UBINARY)
    for candidates in (40, 100):
        what = f"ubinary, the best {candidates} ranked again with float"
        rows.append((what, dimensions // 8, f"{search.recall(bits, candidates):.3f}"))
    show(("type", "bytes", "recall@10"), [tuple(map(str, row)) for row in rows])


def show_ranges(search: Search) -> None:
    """Other ways to map numbers to int8."""
    vectors = search.vectors
    relative = vectors * math.sqrt(vectors.shape[1])  # their root mean square is 1
    rows = []
    for limit in (3.0, 4.0, 5.0, 6.0, 8.0, math.sqrt(vectors.shape[1])):
        short = np.clip(np.rint(relative * (127 / limit)), -127, 127)
        rows.append((f"{limit:.1f} times the root mean square", f"{search.recall(short):.3f}"))
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    rows.append(
        ("the largest number of each vector", f"{search.recall(np.rint(vectors / largest * 127)):.3f}")
    )
    low, high = vectors[QUERIES:].min(axis=0), vectors[QUERIES:].max(axis=0)
    buckets = np.clip(np.floor((vectors - low) / ((high - low) / 255)), 0, 255) - 128
    rows.append(("least and largest number of each dimension of all texts", f"{search.recall(buckets):.3f}"))
    show(("range of int8", "recall@10"), rows)


def show_cost(vectors: Array, rounds: int) -> None:
    """CPU time and size of one vector in a response; all ways take turns."""
    items = [vector.tobytes() for vector in vectors[:500]]
    given = Vectors(items=items, encoding=Encoding.F32)
    ways: dict[str, Callable[[], Any]] = {
        "float in double precision, as without numpy": lambda: [orjson.dumps(floats(item)) for item in items]
    }
    for dtype in OutputDtype:
        ways[dtype] = partial(VectorFormat(dtype).values, given)
        ways[f"{dtype}, base64"] = partial(VectorFormat(dtype, as_base64=True).values, given)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            way()
            taken[name].append((time.process_time() - began) / len(items) * 1e6)
    rows = [
        (name, f"{statistics.median(taken[name][1:]):.1f}", f"{sum(map(len, way())) / len(items):,.0f}")
        for name, way in ways.items()
    ]
    show((f"{vectors.shape[1]} dimensions", "µs", "bytes"), rows)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Recall, size and cost of short vectors.")
    parser.add_argument("--texts", type=int, default=9000, help="at most")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    texts = sorted(set(paragraphs()))
    random.Random(0).shuffle(texts)
    texts = texts[: options.texts]
    print(f"\nShort vectors: {len(texts):,} texts, {QUERIES:,} of them as queries, {MODEL}\n")
    search = Search(asyncio.run(embed(texts)))
    show_recall(search)
    show_ranges(search)
    show_cost(search.vectors, options.rounds)


if __name__ == "__main__":
    main()
