"""G9 and G10: local embeddings compared with sentence-transformers and fastembed, with their defaults and all threads.

    python benchmarks/embed_here.py [--rounds 5] [--scale 1.0]

all-MiniLM-L6-v2 with its real weights. The gateway's way is the one that a call takes: texts through the pipe to the
worker, tokens, batches, vectors back. All take turns, round after round; only ratios of one run count. What share of
the machine's own peak that is, is told by the operations of the model for each token and the best large matrix
product that numpy's or torch's library makes in the same rounds, both a second of CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from support.lengths import workloads
from support.peers import peers
from support.processes import cpu_seconds, tree
from support.table import show

from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import RuntimeFailed
from hubgate.runtime.machine import multiplies_int8
from hubgate.runtime.process import worker_command
from hubgate.runtime.protocol import Embedded, EmbedTexts
from hubgate.runtime.supervisor import LocalModel
from hubgate.upstreams.local.files import packaged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from support.peers import Peers

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
HIDDEN, LAYERS, WIDE = 384, 6, 1536
GOALS = {
    ("f32", "sentence-transformers"): {"mixed": 1.3, "short": 1.2, "passages": 1.2},
    ("f32", "fastembed"): {"mixed": 8.0},
    ("bf16", "sentence-transformers"): {"mixed": 3.5, "short": 3.5, "passages": 3.2},
    ("int8", "f32"): {"mixed": 1.6, "short": 1.6, "passages": 1.6},
}
COSINES = {"f32": 0.9999, "bf16": 0.9995, "int8": 0.999}


class Took(NamedTuple):
    """What a workload took."""

    seconds: float
    cpu: float
    """Of all threads of the process that did it."""


class Here:
    """The gateway's own runtime, in one precision."""

    def __init__(self, folder: Path, precision: Precision) -> None:
        self.model = LocalModel(folder, command=partial(worker_command, precision=precision))
        self._pid = 0

    async def load(self) -> None:
        """Wait until it is loaded."""
        before = set(tree(os.getpid()))
        await self.model.ready()
        self._pid = (set(tree(os.getpid())) - before).pop()

    async def vectors(self, texts: Sequence[str]) -> tuple[np.ndarray[Any, Any], int]:
        """The vectors, and how many tokens were read."""
        answer = await self.model.request(lambda call: EmbedTexts(call, list(texts), None, True, False, None))
        assert isinstance(answer, Embedded)
        return np.frombuffer(answer.vectors, "<f4").reshape(len(texts), -1), sum(answer.tokens)

    async def take(self, texts: Sequence[str]) -> Took:
        """What they take."""
        began, before = time.perf_counter(), cpu_seconds(self._pid)
        await self.vectors(texts)
        return Took(time.perf_counter() - began, cpu_seconds(self._pid) - before)


def take(others: Peers, peer: str, texts: Sequence[str]) -> Took:
    """What they take a peer."""
    before = cpu_seconds(others.pid)
    return Took(others.seconds(peer, texts), cpu_seconds(others.pid) - before)


async def opened(folder: Path) -> dict[str, Here]:
    """The runtime in f32 and int8, and in bf16 where this machine has it."""
    here = {
        precision: Here(folder, precision) for precision in (Precision.F32, Precision.INT8, Precision.BF16)
    }
    await here[Precision.F32].load()
    await here[Precision.INT8].load()
    if not multiplies_int8():
        print("This machine's processor has no VNNI: int8 saves memory only.")
    try:
        await here[Precision.BF16].load()
    except RuntimeFailed as error:
        print(f"G10 (bf16) cannot be measured here: {error.message}")
        await here.pop(Precision.BF16).model.close()
    return {str(precision): one for precision, one in here.items()}


def flops_per_token(tokens: float) -> float:
    """Operations of the model for one token of a text of so many: four projections, two wide layers, attention."""
    linear = 2 * (4 * HIDDEN**2 + 2 * HIDDEN * WIDE)
    return LAYERS * (linear + 2 * 2 * tokens * HIDDEN)


def numpy_gflops(size: int = 2048) -> float:
    """What numpy's library gets out of one large product of f32 matrices, a second of one core."""
    rng = np.random.default_rng(0)
    one, other = (rng.random((size, size), np.float32) for _ in range(2))
    began = time.process_time()
    for _ in range(4):
        one @ other
    return 4 * 2 * size**3 / (time.process_time() - began) / 1e9


async def measure(
    here: Mapping[str, Here], others: Peers, rounds: int, scale: float
) -> tuple[dict[tuple[str, str], list[Took]], list[float]]:
    """Seconds of every way with every workload, round by round, and the peak; the first round is a warm-up."""
    taken: dict[tuple[str, str], list[Took]] = {}
    peaks = []
    for number in range(rounds + 1):
        peaks.append(max(numpy_gflops(), float(others.ask(gemm=True)["gflops"])))
        for load, texts in workloads(number, scale).items():
            each = {name: await one.take(texts) for name, one in here.items()}
            each |= {
                name: take(others, name, texts)
                for name in ("sentence-transformers", "fastembed")
                if name != "fastembed" or load == "mixed"
            }
            for name, took in each.items():
                if number:
                    taken.setdefault((name, load), []).append(took)
    return taken, peaks[1:]


async def report(
    here: Mapping[str, Here],
    others: Peers,
    taken: Mapping[tuple[str, str], list[Took]],
    peak: float,
    scale: float,
) -> None:
    """Print the tables."""
    counted = {
        load: ((await here["f32"].vectors(texts))[1], len(texts))
        for load, texts in workloads(1, scale).items()
    }
    rows = []
    for (name, load), each in sorted(taken.items(), key=lambda item: (item[0][1], item[0][0])):
        tokens, number = counted[load]
        rate = tokens / statistics.median(took.seconds for took in each)
        of_a_core = tokens / statistics.median(took.cpu for took in each)
        share = of_a_core * flops_per_token(tokens / number) / 1e9 / peak
        rows.append((f"{load}, {name}", f"{rate:,.0f}", f"{100 * share:.0f} %"))
    show(("", "tokens/s", f"of the peak ({peak:.0f} GFLOP/s of a core in f32)"), rows)
    ratios = []
    for (ours, peer), goals in GOALS.items():
        for load, goal in goals.items():
            if (ours, load) in taken:
                pairs = list(zip(taken[ours, load], taken[peer, load], strict=True))
                times = [theirs.seconds / own.seconds for own, theirs in pairs]
                cheaper = statistics.median(theirs.cpu / own.cpu for own, theirs in pairs)
                ratios.append(
                    (
                        f"{load}: {ours} to {peer}",
                        f"{statistics.median(times):.2f}",
                        f"{min(times):.2f}–{max(times):.2f}",
                        f"{cheaper:.2f}",
                        f"{goal}",
                    )
                )
    show(("times as fast as", "median", "range", "by CPU time", "goal"), ratios)
    texts = [text for load in workloads(1, scale).values() for text in load]
    reference = others.vectors("sentence-transformers", texts)
    for name, one in here.items():
        cosine = float(((await one.vectors(texts))[0] * reference).sum(axis=1).min())
        print(f"least cosine of {name} to sentence-transformers: {cosine:.6f} (goal {COSINES[name]})")


async def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="G9 and G10: local embeddings.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of texts")
    options = parser.parse_args()
    folder = packaged(MODEL)
    if folder is None:
        raise SystemExit("The weights of all-MiniLM-L6-v2 are not installed: make install")
    print(f"\nG9, G10  local embeddings, {MODEL}; load average {os.getloadavg()[0]:.1f}\n")
    here = await opened(folder)
    with tempfile.TemporaryDirectory() as made, peers(folder, Path(made)) as others:
        taken, peaks = await measure(here, others, options.rounds, options.scale)
        await report(here, others, taken, statistics.median(peaks), options.scale)
    for one in here.values():
        await one.model.close()


if __name__ == "__main__":
    asyncio.run(main())
