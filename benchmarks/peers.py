"""CPU time of a call through hubgate and through other gateways, in one interleaved run before the same model server.

As for G1, every gateway has one core, in turn; wrk and the canned model server share the other. What cannot be installed or
started here is left out, and named at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from gateways.peers import PEERS, Route, Running
from support import machine
from support.gateway import bare_gateway
from support.loopback import Reply, ask
from support.nginx import SMALL, proxy, upstream
from support.processes import end_on_sigterm
from support.table import show
from support.wrk import CONNECTIONS, FEW_CONNECTIONS, NEW, FailedLoad, Load, drive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from support.gateway import Gate
    from support.processes import Process

NGINX, HUBGATE = "nginx", "hubgate"
_EVENTS = 200
_SENTENCE = (
    "Text {} of request {}: a gateway costs little if it never looks at the numbers that pass through it."
)
_TEXTS = [_SENTENCE.format(number, NEW) for number in range(8)]
_KNOWN_TEXTS = [_SENTENCE.format(number, "before") for number in range(8)]
_PROMPT = "Tell me in a sentence or two what a gateway between applications and models is good for, please."
_MESSAGES = [{"role": "user", "content": _PROMPT}]


class Call(NamedTuple):
    """A kind of call, which every gateway answers."""

    name: str
    title: str
    check: Callable[[Reply], bool]
    """Whether a reply has all that was asked for."""


def _has_vectors(reply: Reply) -> bool:
    found = reply.json()
    if isinstance(found, dict):
        found = found.get("data") or found.get("text_embedding") or found["embeddings"]["float"]
    return len(found) == len(_TEXTS)


def _has_text(reply: Reply) -> bool:
    return b"The gate passes this text on" in reply.body


def _has_events(reply: Reply) -> bool:
    # Not every gateway passes on the role at the start, or the usage at the end, which nobody asked for.
    return reply.body.count(b" word") >= _EVENTS - 2


CALLS = (
    Call("chat", "a small chat", _has_text),
    Call("embeddings", f"embeddings of 8 new texts, {SMALL} floats each", _has_vectors),
    Call("stream", f"a chat streamed in {_EVENTS} events", _has_events),
)


@dataclass(slots=True)
class Subject:
    """One way to the model."""

    name: str
    call: str
    process: Process
    url: str
    body: Mapping[str, object]
    headers: Mapping[str, str]
    is_slow: bool = False
    checks_keys: bool = False
    microseconds: list[float] = field(default_factory=list)
    log_bytes: list[float] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    def problem(self, check: Callable[[Reply], bool]) -> str | None:
        """Ask once, and once with a wrong key."""
        reply = ask("POST", self.url, self.body, headers=self.headers)
        wrong = {**self.headers, "Authorization": "Bearer wrong"}
        self.checks_keys = ask("POST", self.url, self.body, headers=wrong).status != 200  # LiteLLM has 400
        return None if reply.status == 200 and check(reply) else f"{reply.status} {reply.body[:300]!r}"

    def measure(self, file: Path, seconds: int) -> None:
        """One turn. What a call leaves to be done later, such as writing to a cache, counts as well."""
        file.write_text(json.dumps(self.body))
        headers = {"Content-Type": "application/json", **self.headers}
        logged, before = _log_size(self.process), self.process.cpu_seconds()
        connections = FEW_CONNECTIONS if self.is_slow else CONNECTIONS
        load = drive(self.url, headers, file, seconds * (4 if self.is_slow else 1), connections)
        self.process.settle()
        self.microseconds.append((self.process.cpu_seconds() - before) / load.requests * 1e6)
        self.log_bytes.append((_log_size(self.process) - logged) / load.requests)
        self.loads.append(load)

    @property
    def cost(self) -> float:
        """The median CPU µs of a call; the first turn warms up."""
        return median(self.microseconds[1:])


def main() -> None:
    """Measure and print."""
    options = _options()
    end_on_sigterm()
    machine.need("wrk", "nginx", "taskset")
    cores = machine.two_cores()
    wanted = [call for call in CALLS if not options.calls or call.name in options.calls]
    print(machine.facts(), flush=True)
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        folder = Path(made)
        behind, _ = stack.enter_context(upstream(folder / "upstream", cores.load))
        through, nginx = stack.enter_context(proxy(folder / "nginx", cores.measured, behind))
        running = {NGINX: _plain_proxy(through, nginx)}
        subjects = [*_of_peer(NGINX, running[NGINX], wanted)]
        usual = stack.enter_context(bare_gateway(folder / "usual", cores.measured))
        uncached = stack.enter_context(bare_gateway(folder / "uncached", cores.measured, cached=False))
        subjects += _of_hubgate(usual, uncached, behind, wanted)
        for peer in [peer for peer in PEERS if not options.peers or peer.name in options.peers]:
            calls = [call for call in wanted if peer.calls is None or call.name in peer.calls]
            if not calls:
                continue
            try:
                started = stack.enter_context(
                    peer.start(folder / peer.name, cores.measured, f"{behind}/vllm/{SMALL}/v1")
                )
            except SystemExit as reason:
                left_out[f"{peer.name} {peer.version}"] = str(reason)
            else:
                subjects += _of_peer(peer.name, started, calls, is_slow=peer.is_slow)
        subjects = _measured(subjects, options.rounds, options.seconds, folder / "body.json", left_out)
    _print(subjects, wanted, left_out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPU time of a call through hubgate and other gateways.")
    parser.add_argument("calls", nargs="*", metavar="call", help="chat, embeddings or stream; all if none")
    parser.add_argument(
        "--peers", nargs="*", choices=[peer.name for peer in PEERS], help="other gateways; all if none"
    )
    parser.add_argument("--rounds", type=int, default=4, help="besides the first, which warms up")
    parser.add_argument("--seconds", type=int, default=2, help="of each turn")
    options = parser.parse_args()
    if unknown := set(options.calls) - {call.name for call in CALLS}:
        parser.error(f"no call is named {' or '.join(sorted(unknown))}")
    return options


def _of_peer(
    name: str, running: Running, wanted: Sequence[Call], *, is_slow: bool = False
) -> Iterator[Subject]:
    """A gateway's OpenAI routes."""
    bodies: list[tuple[str, str, Route | None, dict[str, object]]] = [
        ("chat", name, running.chat, {"messages": _MESSAGES}),
        ("chat", f"{name}, Responses", running.responses, {"input": _PROMPT}),
        ("embeddings", name, running.embeddings, {"input": _TEXTS, "encoding_format": "float"}),
        ("stream", name, running.chat, {"messages": _MESSAGES, "stream": True}),
    ]
    names = {call.name for call in wanted}
    for call, title, route, body in bodies:
        if route and call in names:
            asked = {"model": route.model, **body}
            yield Subject(title, call, running.process, route.url, asked, route.headers, is_slow)


def _plain_proxy(url: str, process: Process) -> Running:
    routes = (
        Route(f"{url}/vllm/{SMALL}/v1/{path}", "canned", {}) for path in ("chat/completions", "embeddings")
    )
    return Running(process, *routes)


def _of_hubgate(usual: Gate, uncached: Gate, behind: str, wanted: Sequence[Call]) -> Iterator[Subject]:
    """Every face, embeddings also without the cache of vectors, and OpenAI's with all texts in it."""
    for gate in (usual, uncached):
        gate.register("vectors", f"{behind}/vllm/{SMALL}")
        gate.register("llm", f"{behind}/llm", "chat_completion")
    keys = {id(gate): gate.key() for gate in (usual, uncached)}

    def subject(call: str, how: str, path: str, body: Mapping[str, object], gate: Gate = usual) -> Subject:
        name = f"{HUBGATE}, {how}" if how else HUBGATE
        return Subject(name, call, gate.process, gate.url + path, body, keys[id(gate)])

    new: dict[str, object] = {"model": "vectors", "input": _TEXTS, "encoding_format": "float"}
    chat: dict[str, object] = {"model": "llm", "messages": _MESSAGES}
    cohere = {"input_type": "search_document", "embedding_types": ["float"]}
    embeddings: list[tuple[str, str, dict[str, object]]] = [
        ("", "/v1/embeddings", new),
        ("Elasticsearch", "/_inference/text_embedding/vectors", {"input": _TEXTS}),
        ("Hugging Face", "/hf/vectors", {"inputs": _TEXTS}),
        ("TEI", "/hf/vectors/embed", {"inputs": _TEXTS}),
        ("Cohere", "/v2/embed", {"model": "vectors", "texts": _TEXTS, **cohere}),
    ]
    found = [
        *(subject("embeddings", how, path, body) for how, path, body in embeddings),
        *(
            subject("embeddings", f"{how or 'OpenAI'}, no cache", path, body, uncached)
            for how, path, body in embeddings
        ),
        subject("embeddings", "all remembered", "/v1/embeddings", {**new, "input": _KNOWN_TEXTS}),
        subject("chat", "", "/v1/chat/completions", chat),
        subject("chat", "Hugging Face", "/hf/llm/v1/chat/completions", chat),
        subject("chat", "Cohere", "/v2/chat", chat),
        subject("chat", "Responses", "/v1/responses", {"model": "llm", "input": _PROMPT}),
        subject("stream", "", "/v1/chat/completions", {**chat, "stream": True}),
        subject("stream", "Elasticsearch", "/_inference/chat_completion/llm/_stream", chat),
        subject("stream", "Hugging Face", "/hf/llm/v1/chat/completions", {**chat, "stream": True}),
        subject("stream", "Cohere", "/v2/chat", {**chat, "stream": True}),
        subject("stream", "Responses", "/v1/responses", {"model": "llm", "input": _PROMPT, "stream": True}),
    ]
    names = {call.name for call in wanted}
    return iter([one for one in found if one.call in names])


def _measured(
    subjects: Sequence[Subject], rounds: int, seconds: int, file: Path, left_out: dict[str, str]
) -> list[Subject]:
    """Those that answered everything, all turns."""
    checks = {call.name: call.check for call in CALLS}
    remaining = []
    for subject in subjects:
        if problem := subject.problem(checks[subject.call]):
            left_out[f"{subject.name}, {subject.call}"] = problem
        else:
            remaining.append(subject)
    for number in range(rounds + 1):
        for subject in list(remaining):
            try:
                subject.measure(file, seconds if number else 1)
            except FailedLoad as reason:
                left_out[f"{subject.name}, {subject.call}"] = str(reason)
                remaining.remove(subject)
    return remaining


def _log_size(process: Process) -> int:
    """Of what it has printed, and of the access log beside it."""
    return sum(path.stat().st_size for path in process.output.parent.glob("*.log"))


def _print(subjects: Sequence[Subject], wanted: Sequence[Call], left_out: Mapping[str, str]) -> None:
    for call in wanted:
        rows = {subject.name: subject for subject in subjects if subject.call == call.name}
        if rows.keys() >= {NGINX, HUBGATE}:
            print(f"\nCPU time of {call.title}: medians of the rounds, the first left out\n")
            show(
                (
                    "",
                    "CPU µs",
                    "range",
                    "to nginx",
                    "hubgate to it",
                    "requests/s",
                    "p50 ms",
                    "p99 ms",
                    "log B",
                    "key",
                ),
                [_row(subject, rows) for subject in rows.values()],
            )
    versions = [
        f"{NGINX}: access log, nothing else",
        f"{HUBGATE}: key check, access log, usage and metrics, queue",
    ]
    versions += [f"{peer.name} {peer.version}: {peer.does}" for peer in PEERS]
    print("What each does besides passing a call on:", *versions, sep="\n  ")
    for name, reason in left_out.items():
        print(f"NOT MEASURED: {name}: {reason}")


def _row(subject: Subject, rows: Mapping[str, Subject]) -> tuple[str, ...]:
    loads = subject.loads[1:]
    ours = rows[HUBGATE].cost / subject.cost
    return (
        subject.name + (f" ({FEW_CONNECTIONS} connections)" if subject.is_slow else ""),
        f"{subject.cost:,.1f}",
        f"{min(subject.microseconds[1:]):,.0f}-{max(subject.microseconds[1:]):,.0f}",
        f"{subject.cost / rows[NGINX].cost:,.1f}",
        f"{ours:.3g}",
        f"{median(load.requests / load.seconds for load in loads):,.0f}",
        f"{median(load.p50_ms for load in loads):.1f}",
        f"{median(load.p99_ms for load in loads):.1f}",
        f"{median(subject.log_bytes[1:]):.0f}",
        "yes" if subject.checks_keys else "no",
    )


if __name__ == "__main__":
    main()
