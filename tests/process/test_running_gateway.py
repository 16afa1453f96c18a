"""A running gateway: its commands, log, signals and shutdown."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from gateway_process import GatewayProcess, Home
from lookalikes import LookAlike, lookalike

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from running_gateway import Reply

TOKEN = "hf_" + "t0ken" * 6
OTHER_ICU = """
import importlib.machinery, importlib.util, sys
spec = importlib.machinery.PathFinder.find_spec("icu", [p for p in sys.path if p != {folder!r}])
real = importlib.util.module_from_spec(spec)
sys.modules["icu"] = real
spec.loader.exec_module(real)
real.ICU_VERSION = "72.1"
"""


def register(home: Home, server: LookAlike, name: str = "e5") -> None:
    """A server behind an endpoint that wants a token."""
    added = home.run("add", name, "--url", server.url, "--token-env", "HF_TOKEN", HF_TOKEN=TOKEN)
    assert (added.status, added.err) == (0, "")
    assert TOKEN not in added.out


def test_commands_without_a_running_gateway_apply_to_the_next_one(home: Home) -> None:
    with lookalike("tei", key=TOKEN, seconds=0.05) as server:  # slower than the watch for clients that leave
        register(home, server)
        assert [line.split()[0] for line in home.run("list").out.splitlines()] == ["name", "e5", "words"]
        key = home.run("key", "create", "team/app").out.strip()
        assert home.run("key", "create", "gone").status == 0
        assert home.run("key", "revoke", "gone").out == "Revoked gone.\n"
        with home.serve() as gateway:
            assert gateway.embed("e5", "a text", key=key).status == 200
            assert home.run("key", "revoke", "team/app").status == 0
            assert gateway.embed("e5", "a text", key=key).status == 401


def test_command_changes_apply_at_once_to_the_running_gateway_and_log_no_secret(home: Home) -> None:
    admin_key = home.admin_key
    on = {"HUBGATE_KEYS_IN_PATH": "true", "HUBGATE_LOG_LEVEL": "debug"}
    with lookalike("tei", key=TOKEN) as server, home.serve(**on) as gateway:
        key = home.run("key", "create", "app").out.strip()
        register(home, server)
        assert gateway.embed("e5", "a text", key=key).status == 200
        assert gateway.embed("e5", "a text", key=admin_key).status == 200
        assert gateway.request("POST", f"/k/{key}/hf/e5/embed", {"inputs": "a text"}).status == 200
        assert gateway.request("POST", f"/k/{key}/no/such/path", {}).status == 404
        assert gateway.embed("e5", "a text", key=TOKEN).status == 401
        server.fail("echo", times=1)
        assert gateway.embed("e5", "another text", key=key).status >= 400
        assert home.run("key", "revoke", "app").status == 0
        assert gateway.embed("words", "a text", key=key).status == 401
        assert gateway.request("POST", f"/k/{key}/hf/e5/embed", {"inputs": "a text"}).status == 401
        assert home.run("remove", "e5").status == 0
        assert gateway.embed("e5", "a text", key=admin_key).status == 404
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert "cause=endpoint_not_found" in gateway.output
        for secret in (admin_key, key, TOKEN):
            assert secret not in gateway.output


def test_killed_gateway_leaves_no_lock_and_loses_nothing(home: Home) -> None:
    with lookalike("tei", key=TOKEN) as server:
        register(home, server)
        with home.serve() as gateway, ThreadPoolExecutor(1) as caller:
            key = home.run("key", "create", "app").out.strip()
            server.fail("hang", method="POST")
            asking = caller.submit(gateway.embed, "e5", "never answered", key=key)
            server.wait_until(lambda s: bool(s.posts) and "never answered" in s.posts[-1].texts)
            gateway.signal(signal.SIGKILL)
            assert gateway.wait() == -signal.SIGKILL
            assert isinstance(asking.exception(240), OSError)
        server.heal()
        listed = home.run("list")
        assert (listed.status, listed.err) == (0, "")
        with home.serve() as gateway:
            assert gateway.embed("e5", "a text", key=key).status == 200
            assert gateway.embed("words", "a text", key=key).status == 200


def test_call_in_flight_is_answered_before_the_gateway_stops(home: Home) -> None:
    with lookalike("tei", key=TOKEN) as server, home.serve() as gateway, ThreadPoolExecutor(1) as caller:
        asking = in_flight(home, gateway, server, caller)
        gateway.signal(signal.SIGTERM)
        gateway.wait_for("stopping")
        server.heal()
        assert asking.result(240).status == 200
        assert gateway.wait() == 0


def test_second_signal_aborts_all_calls(home: Home, tmp_path: Path) -> None:
    icu = tmp_path / "icu-72"
    icu.mkdir()
    (icu / "icu.py").write_text(OTHER_ICU.format(folder=str(icu)), "utf-8")
    with (
        lookalike("tei", key=TOKEN) as server,
        home.serve(PYTHONPATH=str(icu)) as gateway,
        ThreadPoolExecutor(1) as caller,
    ):
        assert "this gateway has ICU 72.1" in gateway.output
        call = in_flight(home, gateway, server, caller)
        gateway.signal(signal.SIGINT)
        gateway.wait_for("stopping")
        gateway.signal(signal.SIGINT)
        assert gateway.wait() == 0
        reply = call.result(240)
        assert (reply.status, reply.json()["error"]["code"]) == (503, "gate_stopping")
        assert not gateway.traceback, gateway.traceback


def test_drain_delay_lets_a_load_balancer_notice_before_the_gateway_stops(home: Home) -> None:
    with home.serve(HUBGATE_DRAIN_DELAY="300") as gateway:
        assert gateway.request("GET", "/readyz").status == 200
        gateway.signal(signal.SIGTERM)
        gateway.wait_for("draining: ")
        leaving = gateway.request("GET", "/readyz")
        assert (leaving.status, leaving.json()) == (503, {"status": "draining"})
        assert gateway.request("GET", "/healthz").status == 200
        assert gateway.embed("words", "a text", key=home.admin_key).status == 200
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
    with home.serve(HUBGATE_DRAIN_DELAY="1") as gateway:
        gateway.signal(signal.SIGTERM)
        gateway.wait_for("draining: ")
        gateway.wait_for("stopping")
        assert gateway.wait() == 0
    with home.serve(HUBGATE_DRAIN_DELAY="300") as gateway:
        gateway.signal(signal.SIGINT)
        assert gateway.wait() == 0
        assert "draining: " not in gateway.output


def in_flight(
    home: Home, gateway: GatewayProcess, server: LookAlike, caller: ThreadPoolExecutor
) -> Future[Reply]:
    """A call that its model's server does not answer until it is healed."""
    form = {"name": "e5", "url": server.url, "token": TOKEN}
    assert gateway.request("POST", "/api/endpoints", form, key=home.admin_key).status == 201
    server.fail("hang", method="POST")
    asking = caller.submit(gateway.embed, "e5", "in flight", key=home.admin_key)
    server.wait_until(lambda s: s.posts[-1].texts == ["in flight"])
    return asking


def test_startup_errors_are_reported_in_one_line(home: Home) -> None:
    with home.serve(HUBGATE_HOST="0.0.0.0") as gateway:
        gateway.wait_for(r"serves on http://127\.0\.0\.1:\d+, and on every other address of this machine\n")
        port = gateway.url.rpartition(":")[2]
        second = home.run("serve")
        assert (second.status, second.out) == (1, "")
        assert second.err.startswith("hubgate: Another gateway runs in ")
        elsewhere = {"HUBGATE_HOME": f"{home.env['HOME']}/elsewhere"}
        taken = home.run("serve", HUBGATE_PORT=port, **elsewhere)
        assert (taken.status, taken.out) == (1, "")
        assert f"Cannot listen on 127.0.0.1 port {port}: Address already in use." in taken.err
        weak = home.run("serve", HUBGATE_ADMIN_KEY="letmein", **elsewhere)
        assert (weak.status, weak.out) == (1, "")
        assert weak.err.startswith("hubgate: HUBGATE_ADMIN_KEY is too weak")
        assert "letmein" not in weak.err
        for told in (second, taken, weak):
            assert told.err.count("\n") == 1


HEAVY = {
    "aiohttp",
    "alembic",
    "asyncio",
    "cryptography",
    "huggingface_hub",
    "icu",
    "msgspec",
    "numpy",
    "openvino",
}
HEAVY |= {"pyarrow", "pydantic", "regex", "sqlalchemy", "starlette", "uvicorn"}
IMPORTS = """\
import json, sys
from hubgate.cli import main
try: main(sys.argv[1:])
except SystemExit: pass
{then}
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def imported(env: dict[str, str], *arguments: str, then: str = "") -> set[str]:
    """The modules of a process that has run a command."""
    program = [sys.executable, "-c", IMPORTS.format(then=then), *arguments]
    ran = subprocess.run(program, env=env, capture_output=True, text=True, check=True)
    return set(json.loads(ran.stdout.splitlines()[-1]))


def test_help_imports_nothing_heavy(home: Home) -> None:
    assert imported(home.env, "--help") & (HEAVY | {"rich", "urllib.request"}) == set()


def test_command_imports_nothing_heavy_if_a_gateway_runs(home: Home) -> None:
    with home.serve():
        modules = imported(home.env, "key", "list")
    assert "urllib.request" in modules
    assert modules & (HEAVY - {"msgspec"}) == set()


def test_gateway_imports_only_what_it_uses(tmp_path: Path) -> None:
    modules = imported(Home(tmp_path).env, "add", "words", "--fake", then="import hubgate.cli.server.serve")
    unused = {"alembic", "huggingface_hub", "jinja2", "numpy", "obstore", "openvino", "psycopg", "pyarrow"}
    unused |= {
        "hiredis",
        "psycopg_binary",
        "pydantic",
        "redis",
        "rich",
        "sqlalchemy.dialects.postgresql",
        "tokenizers",
    }
    assert {"sqlalchemy.dialects.sqlite", "starlette", "uvicorn"} <= modules
    assert modules & unused == set()
