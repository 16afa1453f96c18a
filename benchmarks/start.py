"""G6: the startup time of a gateway and of its local model, and its CPU use when idle."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from gateways.peers import litellm
from support import machine
from support.gateway import gateway
from support.table import show

_IDLE_SECONDS = 10
_LOADING_SECONDS = 3
"""The answer to `ready` is cached: the model is still being loaded."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="G6: cold start and idle CPU.")
    parser.add_argument("--quick", action="store_true", help="one start instead of three")
    parser.add_argument("--with-litellm", action="store_true", help="install LiteLLM and start it too")
    options = parser.parse_args()
    machine.need("taskset")
    core = machine.two_cores().measured
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        starts = [_start(folder / str(number), core) for number in range(1 if options.quick else 3)]
        again = [_start(folder / str(number), core) for number in range(len(starts))]
        rows = [
            ("gateway, first start", *_medians(starts)),
            ("gateway, started again", *_medians(again)),
        ]
        if options.with_litellm:
            start = time.monotonic()
            with litellm(folder / "litellm", core, "http://127.0.0.1:9"):
                rows.append(("LiteLLM", f"{time.monotonic() - start:.2f}", ""))
        print("\nG6  cold start on one core, files in the page cache; seconds, medians\n")
        show(("", "to /healthz", "to the first local embedding"), rows)
        with gateway(folder / "0", core) as idle:
            idle.ready()
            time.sleep(_LOADING_SECONDS)
            print(
                f"Idle CPU with a local model: {idle.process.idle_cpu(_IDLE_SECONDS):.2%} (goal: 1 %, stretch: 0.2 %)\n"
            )


def _start(folder: Path, core: int) -> tuple[float, float]:
    """Seconds to /healthz and to the first vectors."""
    begun = time.monotonic()
    with gateway(folder, core) as started:
        alive = time.monotonic() - begun
        started.ready()
        return alive, time.monotonic() - begun


def _medians(starts: list[tuple[float, float]]) -> tuple[str, str]:
    return f"{median(alive for alive, _ in starts):.2f}", f"{median(answers for _, answers in starts):.2f}"


if __name__ == "__main__":
    main()
