"""G11: throughput of a local model with 64 clients that send one text each, of mixed lengths.

    python benchmarks/crowd_here.py [--rounds 5] [--seconds 5]

The same worker and the same model with three rules: the gateway's own, each text alone, and first come, first served in
batches of up to 16,384 padded tokens (what servers usually do). All take turns, round after round; only ratios of one
run count. In bf16 too, where this machine has it, compared with each text alone in f32.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from support.lengths import workloads
from support.processes import cpu_seconds, tree
from support.table import show

from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import RuntimeFailed
from hubgate.runtime.process import worker_command
from hubgate.runtime.protocol import EmbedTexts
from hubgate.runtime.supervisor import LocalModel
from hubgate.upstreams.local.files import packaged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CLIENTS = 64
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
GOALS = {("f32", "alone"): 1.0, ("bf16", "alone"): 1.6, ("f32", "first-come"): 5.0}


def command_with(policy: str, folder: Path) -> list[str]:
    """How a worker with another rule is started, in f32."""
    return [sys.executable, "-P", str(Path(__file__).parent / "support" / "policies.py"), policy, str(folder)]


class Way(NamedTuple):
    """A loaded model, and the process that it runs in."""

    model: LocalModel
    pid: int


async def opened(folder: Path) -> dict[str, Way]:
    """A model for each way, all loaded."""
    models = {
        precision.value: LocalModel(folder, command=partial(worker_command, precision=precision))
        for precision in (Precision.F32, Precision.BF16)
    }
    models |= {
        policy: LocalModel(folder, command=partial(command_with, policy))
        for policy in ("alone", "first-come")
    }
    ways = {}
    for name, model in models.items():
        before = set(tree(os.getpid()))
        try:
            await model.ready()
        except RuntimeFailed as error:
            print(f"In {name} it cannot be measured here: {error.message}\n")
            await model.close()
        else:
            ways[name] = Way(model, (set(tree(os.getpid())) - before).pop())
    return ways


class Round(NamedTuple):
    """What 64 clients got in some seconds."""

    texts: int
    seconds: float
    cpu: float
    """Seconds of the worker's threads."""
    waits: list[float]
    """How long each call took."""


async def crowd(way: Way, texts: Sequence[str], seconds: float) -> Round:
    """Let 64 clients ask, each for one text after the other."""
    before, began = cpu_seconds(way.pid), time.perf_counter()
    waits: list[float] = []

    async def client(number: int) -> None:
        rng = random.Random(number)
        while time.perf_counter() - began < seconds:
            request = partial(_one, rng.choice(texts))
            start = time.perf_counter()
            await way.model.request(request)
            waits.append(time.perf_counter() - start)

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return Round(len(waits), time.perf_counter() - began, cpu_seconds(way.pid) - before, waits)


def _one(text: str, call: int) -> EmbedTexts:
    return EmbedTexts(call, [text], None, True, False, None)


def report(rounds: Mapping[str, Sequence[Round]]) -> None:
    """Print the tables."""
    rows = []
    for name, each in rounds.items():
        waits = sorted(wait for one in each for wait in one.waits)
        rows.append(
            (
                name,
                f"{statistics.median(one.texts / one.seconds for one in each):.0f}",
                f"{1e3 * statistics.median(one.cpu / one.texts for one in each):.2f}",
                f"{waits[len(waits) // 2] * 1e3:.0f}",
                f"{waits[len(waits) * 99 // 100] * 1e3:.0f}",
            )
        )
    show(("", "texts/s", "CPU ms a text", "p50, ms", "p99, ms"), rows)
    ratios = []
    for (ours, other), goal in GOALS.items():
        if ours in rounds:
            pairs = list(zip(rounds[ours], rounds[other], strict=True))
            times = [(one.texts / one.seconds) / (two.texts / two.seconds) for one, two in pairs]
            cheaper = statistics.median((two.cpu / two.texts) / (one.cpu / one.texts) for one, two in pairs)
            spread = f"{min(times):.2f}–{max(times):.2f}"
            ratios.append(
                (f"{ours} to {other}", f"{statistics.median(times):.2f}", spread, f"{cheaper:.2f}", f"{goal}")
            )
    show(("times the throughput", "median", "range", "by CPU time", "goal"), ratios)


async def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="G11: many clients of a local model.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each way in each round")
    options = parser.parse_args()
    folder = packaged(MODEL)
    if folder is None:
        raise SystemExit("The weights of all-MiniLM-L6-v2 are not installed: make install")
    print(f"\nG11  {CLIENTS} clients, one text each, mixed lengths; load average {os.getloadavg()[0]:.1f}\n")
    ways = await opened(folder)
    texts = workloads(11)["mixed"]
    rounds: dict[str, list[Round]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, way in ways.items():
            one = await crowd(way, texts, options.seconds)
            if number:  # the first is a warm-up
                rounds[name].append(one)
    for way in ways.values():
        await way.model.close()
    report(rounds)


if __name__ == "__main__":
    asyncio.run(main())
