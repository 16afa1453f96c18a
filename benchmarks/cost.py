"""G1: the CPU time of one embedding request, compared with nginx as a plain proxy.

The gateway and nginx each run on one core; wrk and the canned upstream share the other. All take turns, round
after round, so that a slow minute of the machine is slow for all of them. CPU time is that of the process tree.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from support import machine
from support.gateway import bare_gateway
from support.loopback import ask
from support.nginx import LARGE, SMALL, proxy, upstream
from support.table import show
from support.turns import asked_turns
from support.wrk import CONNECTIONS, FEW_CONNECTIONS, NEW, Load, drive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from support.gateway import Gate
    from support.processes import Process

MAIN = "OpenAI floats ← TEI"
_SENTENCE = (
    "Text {} of request {}: a gateway costs little if it never looks at the numbers that pass through it."
)
FEW = [_SENTENCE.format(n, NEW) for n in range(8)]
MANY = [_SENTENCE.format(n, NEW) for n in range(96)]
_OLD = [_SENTENCE.format(n, "before") for n in range(8)]


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
    connections: int = CONNECTIONS
    microseconds: list[float] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    def check(self) -> None:
        """Ask once: all vectors must be there."""
        reply = ask("POST", self.url, self.body, headers=self.headers)
        if reply.status != 200:
            raise SystemExit(f"{self.name}: {reply.status} {reply.body[:500]!r}")
        asked = self.body.get("input") or self.body.get("inputs")
        got = _vectors(reply.json())
        assert isinstance(asked, list)
        if len(got) != len(asked):
            raise SystemExit(f"{self.name}: {len(got)} vectors for {len(asked)} texts")

    def measure(self, body: Path, seconds: int) -> None:
        """One turn."""
        body.write_text(json.dumps(self.body))
        before = self.process.cpu_seconds()
        headers = {"Content-Type": "application/json", **self.headers}
        load = drive(self.url, headers, body, seconds, self.connections)
        self.microseconds.append((self.process.cpu_seconds() - before) / load.requests * 1e6)
        self.loads.append(load)


def main() -> None:
    """Measure and print."""
    turns = asked_turns("G1: CPU time of an embedding request.")
    machine.need("wrk", "nginx", "taskset")
    cores = machine.two_cores()
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        folder = Path(made)
        behind, model = stack.enter_context(upstream(folder / "upstream", cores.load))
        through, nginx = stack.enter_context(proxy(folder / "nginx", cores.measured, behind))
        usual = stack.enter_context(bare_gateway(folder / "usual", cores.measured))
        uncached = stack.enter_context(bare_gateway(folder / "uncached", cores.measured, cached=False))
        subjects = _limits(behind, model, through, nginx)
        subjects += _faces(_Front(usual, behind), _Front(uncached, behind), subjects)
        for subject in subjects:
            subject.check()
        for number in range(turns.rounds + 1):
            for subject in subjects:
                subject.measure(folder / "body.json", turns.seconds if number else 1)
        _print(subjects)


def _limits(behind: str, model: Process, through: str, nginx: Process) -> list[Subject]:
    small, large = (f"/vllm/{dimensions}/v1/embeddings" for dimensions in (SMALL, LARGE))
    few = {"model": "canned", "input": FEW}
    encoded = {**few, "encoding_format": "base64"}
    many = {"model": "canned", "input": MANY}
    return [
        Subject("upstream itself, 8 × 384", model, behind + small, few, {}),
        Subject("nginx, 8 × 384 floats", nginx, through + small, few, {}),
        Subject("nginx, 8 × 384 base64", nginx, through + small, encoded, {}),
        Subject("nginx, 96 × 1024 floats", nginx, through + large, many, {}, connections=FEW_CONNECTIONS),
    ]


class _Front:
    """One gateway before all the canned models."""

    def __init__(self, gateway: Gate, behind: str) -> None:
        gateway.register("tei", f"{behind}/tei/{SMALL}")
        gateway.register("vllm", f"{behind}/vllm/{SMALL}")
        gateway.register("tei-large", f"{behind}/tei/{LARGE}")
        self._gate = gateway
        self._key = gateway.key()

    def ask(self, name: str, path: str, body: Mapping[str, object], limit: Subject) -> Subject:
        """Any of its routes."""
        url = self._gate.url + path
        return Subject(name, self._gate.process, url, body, self._key, limit, limit.connections)

    def openai(
        self, name: str, model: str, limit: Subject, texts: Sequence[str] = FEW, encoding: str = "float"
    ) -> Subject:
        """OpenAI's route."""
        body = {"model": model, "input": texts, "encoding_format": encoding}
        return self.ask(name, "/v1/embeddings", body, limit)


def _faces(usual: _Front, uncached: _Front, limits: Sequence[Subject]) -> list[Subject]:
    """Each face before TEI, which sends floats; OpenAI's also before vLLM, which is asked for base64."""
    _, floats, base64, large = limits
    return [
        usual.openai(MAIN, "tei", floats),
        usual.openai(f"{MAIN}, all remembered", "tei", floats, _OLD),
        uncached.openai(f"{MAIN}, no cache", "tei", floats),
        usual.ask("Elasticsearch ← TEI", "/_inference/text_embedding/tei", {"input": FEW}, floats),
        usual.ask("Hugging Face ← TEI", "/hf/tei/embed", {"inputs": FEW}, floats),
        usual.openai("OpenAI base64 ← TEI", "tei", base64, encoding="base64"),
        usual.openai("OpenAI base64 ← vLLM", "vllm", base64, encoding="base64"),
        usual.openai("OpenAI floats ← vLLM", "vllm", floats),
        usual.openai(f"{MAIN}, 96 × 1024", "tei-large", large, MANY),
    ]


def _vectors(reply: object) -> list[object]:
    """The vectors of any face's reply."""
    if isinstance(reply, dict):
        reply = reply.get("data") or reply.get("text_embedding")
    assert isinstance(reply, list), reply
    return reply


def _print(subjects: Sequence[Subject]) -> None:
    print("\nG1  CPU time of an embedding request, medians of the rounds (the first left out)\n")
    rows = []
    for subject in subjects:
        cost, loads = subject.microseconds[1:], subject.loads[1:]
        rows.append(
            (
                subject.name,
                f"{median(load.bytes / load.requests for load in loads) / 1000:.0f}",
                f"{median(cost):.1f}",
                f"{min(cost):.1f}-{max(cost):.1f}",
                f"{_cost(subject) / _cost(subject.limit):.1f}" if subject.limit else "",
                f"{median(load.requests / load.seconds for load in loads):,.0f}",
                f"{median(load.p50_ms for load in loads):.1f}",
                f"{median(load.p99_ms for load in loads):.1f}",
            )
        )
    show(("", "reply kB", "CPU µs", "range", "to nginx", "requests/s", "p50 ms", "p99 ms"), rows)


def _cost(subject: Subject) -> float:
    return median(subject.microseconds[1:])


if __name__ == "__main__":
    main()
