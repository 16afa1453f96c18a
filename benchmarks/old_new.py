"""The CPU time of a request, of this working tree and of an older commit.

    PYTHONPATH=tests python benchmarks/old_new.py COMMIT

Gateways of both take turns on one core, with the packages of this environment; wrk and the canned model servers share the
other. "Shared": the rate limit is in PostgreSQL. A ratio compares the turns of one round.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from chat import CHAT
from cost import FEW, MANY, Subject
from postgres.server import PostgresServer, free_port, short_folder
from support import machine
from support.gateway import bare_gateway, gateway
from support.nginx import LARGE, SMALL, upstream
from support.processes import end_on_sigterm
from support.table import show
from support.wrk import CONNECTIONS, FEW_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from support.gateway import Gate

ROOT = Path(__file__).resolve().parent.parent
CODEC = Path("hubgate/core/vector_codec/compiled.abi3.so")
NEVER_REACHED = 10_000_000
"""Requests a minute."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=2, help="of each turn")
    options = parser.parse_args()
    machine.need("wrk", "nginx", "taskset", "git")
    cores = machine.two_cores()
    end_on_sigterm()
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        folder = Path(made)
        behind, _ = stack.enter_context(upstream(folder / "upstream", cores.load))
        database = PostgresServer(short_folder(), free_port())
        database.start()
        stack.callback(database.stop)
        old = stack.enter_context(_sources(options.commit, folder / "commit"))
        trees = [
            _subjects(stack, folder / name, _Around(source, cores.measured, database.url, behind))
            for name, source in (("old", old), ("new", ROOT / "src"))
        ]
        pairs = list(zip(*trees, strict=True))
        for number in range(options.rounds + 1):
            for pair in pairs:
                for subject in pair if number % 2 else reversed(pair):
                    subject.measure(folder / "body.json", options.seconds if number else 1)
    _print(pairs)


@contextlib.contextmanager
def _sources(commit: str, folder: Path) -> Iterator[Path]:
    """The packages of a commit, with the compiled codec of this tree."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        shutil.copy(ROOT / "src" / CODEC, folder / "src" / CODEC)
        yield folder / "src"
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


class _Around(NamedTuple):
    """What the gateways of one tree run with."""

    source: Path
    core: int
    database: str
    model_server: str


def _subjects(stack: contextlib.ExitStack, folder: Path, around: _Around) -> list[Subject]:
    """The same calls to gateways of any sources."""
    source, core, database, behind = around
    folder.mkdir()
    tree = {"PYTHONPATH": str(source)}
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {folder.name}".encode())
    shared = {
        "HUBGATE_DATABASE_URL": f"{database.rpartition('/')[0]}/{folder.name}",
        "HUBGATE_SECRET_KEY": secrets.token_urlsafe(32),
        "HUBGATE_SECRET_KEY_FILE": "",
    }
    usual, uncached, sharing = (
        _Front(stack.enter_context(each), behind)
        for each in (
            bare_gateway(folder / "usual", core, settings=tree),
            bare_gateway(folder / "uncached", core, cached=False, settings=tree),
            gateway(folder / "sharing", core, cached=False, settings=tree | shared),
        )
    )
    few, one = {"model": "tei", "input": FEW}, {"model": "tei", "input": FEW[:1]}
    chat = {"model": "llm", "messages": CHAT}
    return [
        usual.asks("8 texts", "/v1/embeddings", few),
        usual.asks(
            "96 texts, 1,024 dimensions", "/v1/embeddings", {"model": "large", "input": MANY}, FEW_CONNECTIONS
        ),
        uncached.asks("8 texts, no cache", "/v1/embeddings", few),
        uncached.asks("8 texts, no cache, Elasticsearch", "/_inference/text_embedding/tei", {"input": FEW}),
        uncached.asks("1 text, no cache", "/v1/embeddings", one),
        sharing.asks("1 text, no cache, shared", "/v1/embeddings", one),
        usual.asks("chat", "/v1/chat/completions", chat),
        usual.asks("chat, streamed", "/v1/chat/completions", {**chat, "stream": True}),
        sharing.asks("chat, shared", "/v1/chat/completions", chat),
    ]


class _Front:
    """One gateway before all the canned models."""

    def __init__(self, gateway: Gate, behind: str) -> None:
        gateway.register("tei", f"{behind}/tei/{SMALL}", requests_per_minute=NEVER_REACHED)
        gateway.register("large", f"{behind}/tei/{LARGE}", requests_per_minute=NEVER_REACHED)
        gateway.register("llm", f"{behind}/llm", "chat_completion", requests_per_minute=NEVER_REACHED)
        self._gate = gateway
        self._key = gateway.key()

    def asks(
        self, name: str, path: str, body: Mapping[str, object], connections: int = CONNECTIONS
    ) -> Subject:
        """One call again and again."""
        url = self._gate.url + path
        return Subject(name, self._gate.process, url, body, self._key, connections=connections)


def _print(pairs: list[tuple[Subject, ...]]) -> None:
    rows = []
    for old, new in pairs:
        before, after = old.microseconds[1:], new.microseconds[1:]
        ratios = sorted(late / early for early, late in zip(before, after, strict=True))
        rows.append(
            (
                new.name,
                f"{median(before):.1f}",
                f"{median(after):.1f}",
                f"{median(ratios):.3f}",
                f"{ratios[0]:.2f}-{ratios[-1]:.2f}",
            )
        )
    show(("", "old, CPU µs", "new, CPU µs", "ratio", "of the rounds"), rows)


if __name__ == "__main__":
    main()
