"""G1: what one embedding request costs in CPU time, beside nginx as a plain proxy and, if asked for, LiteLLM.

The gate, nginx and LiteLLM each run on one core; wrk and the canned upstream share the other. All take turns, round
after round, so that a slow minute of the machine is slow for all of them. CPU time is that of the process tree.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from support import machine
from support.gate import bare_gate
from support.litellm import KEY, litellm
from support.loopback import ask
from support.nginx import LARGE, SMALL, proxy, upstream
from support.table import show
from support.wrk import CONNECTIONS, Load, drive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from support.gate import Gate
    from support.processes import Process

_SENTENCE = "Text {}: a gate costs little if it never looks at the numbers that pass through it."
_FEW = [_SENTENCE.format(n) for n in range(8)]
_MANY = [_SENTENCE.format(n) for n in range(96)]


@dataclass(slots=True)
class Subject:
    """One way to the vectors."""

    name: str
    process: Process
    url: str
    body: Mapping[str, object]
    headers: Mapping[str, str]
    limit: Subject | None = None
    """nginx, passing on the same bytes."""
    microseconds: list[float] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    def check(self) -> int:
        """Ask once: all vectors must be there. How many bytes the reply has."""
        reply = ask("POST", self.url, self.body, headers=self.headers)
        if reply.status != 200:
            raise SystemExit(f"{self.name}: {reply.status} {reply.body[:500]!r}")
        asked = self.body.get("input") or self.body.get("inputs")
        got = _vectors(reply.json())
        assert isinstance(asked, list)
        if len(got) != len(asked):
            raise SystemExit(f"{self.name}: {len(got)} vectors for {len(asked)} texts")
        return len(reply.body)

    def measure(self, body: Path, seconds: int) -> None:
        """One turn."""
        body.write_text(json.dumps(self.body))
        before = self.process.cpu_seconds()
        load = drive(self.url, {"Content-Type": "application/json", **self.headers}, body, seconds)
        self.microseconds.append((self.process.cpu_seconds() - before) / load.requests * 1e6)
        self.loads.append(load)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="G1: CPU time of an embedding request.")
    parser.add_argument(
        "--quick", action="store_true", help="two rounds of one second: a look, not a measurement"
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=2, help="of each turn")
    parser.add_argument("--with-litellm", action="store_true", help="install LiteLLM and measure it too")
    options = parser.parse_args()
    rounds, seconds = (2, 1) if options.quick else (options.rounds, options.seconds)
    machine.need("wrk", "nginx", "taskset")
    cores = machine.two_cores()
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        folder = Path(made)
        behind, model = stack.enter_context(upstream(folder / "upstream", cores.load))
        through, nginx = stack.enter_context(proxy(folder / "nginx", cores.measured, behind))
        gate = stack.enter_context(bare_gate(folder / "gate", cores.measured))
        subjects = _limits(behind, model, through, nginx)
        subjects += _faces(gate, behind, subjects)
        if options.with_litellm:
            url, process = stack.enter_context(litellm(folder / "litellm", cores.measured, behind))
            subjects += _litellm(url, process, subjects)
        sizes = {subject.name: subject.check() for subject in subjects}
        for number in range(rounds + 1):
            for subject in subjects:
                subject.measure(folder / "body.json", seconds if number else 1)
        _print(subjects, sizes)


def _limits(behind: str, model: Process, through: str, nginx: Process) -> list[Subject]:
    few = {"model": "canned", "input": _FEW}
    many = {"model": "canned", "input": _MANY}
    return [
        Subject("upstream itself, 8 × 384", model, f"{behind}/vllm/{SMALL}/v1/embeddings", few, {}),
        Subject("nginx, 8 × 384 floats", nginx, f"{through}/vllm/{SMALL}/v1/embeddings", few, {}),
        Subject(
            "nginx, 8 × 384 base64",
            nginx,
            f"{through}/vllm/{SMALL}/v1/embeddings",
            {**few, "encoding_format": "base64"},
            {},
        ),
        Subject("nginx, 96 × 1024 floats", nginx, f"{through}/vllm/{LARGE}/v1/embeddings", many, {}),
    ]


def _faces(gate: Gate, behind: str, limits: Sequence[Subject]) -> list[Subject]:
    """Each face before TEI, which sends floats; OpenAI's also before vLLM, which is asked for base64."""
    _, floats, base64, large = limits
    gate.register("tei", f"{behind}/tei/{SMALL}")
    gate.register("vllm", f"{behind}/vllm/{SMALL}")
    gate.register("tei-large", f"{behind}/tei/{LARGE}")
    key = gate.key()

    def openai(name: str, model: str, encoding: str, texts: Sequence[str], limit: Subject) -> Subject:
        body = {"model": model, "input": texts, "encoding_format": encoding}
        return Subject(name, gate.process, f"{gate.url}/v1/embeddings", body, key, limit)

    def other(name: str, path: str, body: dict[str, object]) -> Subject:
        return Subject(name, gate.process, gate.url + path, body, key, floats)

    return [
        openai("OpenAI floats ← TEI", "tei", "float", _FEW, floats),
        other("Elasticsearch ← TEI", "/_inference/text_embedding/tei", {"input": _FEW}),
        other("Hugging Face ← TEI", "/hf/tei/embed", {"inputs": _FEW}),
        openai("OpenAI base64 ← TEI", "tei", "base64", _FEW, base64),
        openai("OpenAI base64 ← vLLM", "vllm", "base64", _FEW, base64),
        openai("OpenAI floats ← vLLM", "vllm", "float", _FEW, floats),
        openai("OpenAI floats ← TEI, 96 × 1024", "tei-large", "float", _MANY, large),
    ]


def _litellm(url: str, process: Process, limits: Sequence[Subject]) -> list[Subject]:
    body = {"model": "small", "input": _FEW, "encoding_format": "float"}
    return [Subject("LiteLLM, 8 × 384 floats", process, f"{url}/v1/embeddings", body, KEY, limits[1])]


def _vectors(reply: object) -> list[object]:
    """The vectors of any face's reply."""
    if isinstance(reply, dict):
        reply = reply.get("data") or reply.get("text_embedding")
    assert isinstance(reply, list), reply
    return reply


def _print(subjects: Sequence[Subject], sizes: Mapping[str, int]) -> None:
    print(
        f"\nG1  CPU time of an embedding request, {CONNECTIONS} connections; medians of the rounds (the first left out)\n"
    )
    rows = []
    for subject in subjects:
        cost, loads = subject.microseconds[1:], subject.loads[1:]
        rows.append(
            (
                subject.name,
                f"{sizes[subject.name] / 1000:.0f}",
                f"{median(cost):.1f}",
                f"{min(cost):.1f}-{max(cost):.1f}",
                f"{_cost(subject) / _cost(subject.limit):.1f}" if subject.limit else "",
                f"{median(load.requests / load.seconds for load in loads):,.0f}",
                f"{median(load.p50_ms for load in loads):.1f}",
                f"{median(load.p99_ms for load in loads):.1f}",
            )
        )
    show(("", "reply kB", "CPU µs", "range", "to nginx", "requests/s", "p50 ms", "p99 ms"), rows)
    by_name = {subject.name: subject for subject in subjects}
    if peer := by_name.get("LiteLLM, 8 × 384 floats"):
        ratio = _cost(peer) / _cost(by_name["OpenAI floats ← TEI"])
        print(f"LiteLLM costs {ratio:.0f} times the gate (goal: 80, stretch: 120)\n")


def _cost(subject: Subject) -> float:
    return median(subject.microseconds[1:])


if __name__ == "__main__":
    main()
