"""Commands that fail print one plain line, never a traceback."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer.main
from running_gateway import RunningGateway

from hubgate import __version__
from hubgate.cli.main import app
from hubgate.store.lock import HomeLock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commands import Command

    from hubgate.settings import Settings

REFERENCE = (Path(__file__).parents[2] / "docs/commands.md").read_text("utf-8")


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_version_is_printed(hubgate: Command, argument: str) -> None:
    assert hubgate(argument) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    "command",
    [
        *("list", "show e5", "check e5", "accept e5", "doctor e5", "enable e5", "remove e5", "clone e5 e6"),
        *("usage", "usage --csv", "audit", "key list", "key revoke app", "key rotate-secret"),
        *("connection list", "connection remove team", "config export", "job list"),
        *("cache stats", "cache clear"),
    ],
)
def test_commands_without_a_gateway_report_it_and_create_nothing(
    hubgate: Command, settings: Settings, tmp_path: Path, command: str
) -> None:
    failed = hubgate(*command.split())
    assert (failed.status, failed.out) == (1, "")
    assert failed.err == (
        f"hubgate: There is no gateway at {settings.home}. "
        "Start one with `hubgate serve`, or set HUBGATE_HOME to the folder of an existing one "
        "(with `make serve`, it is .hubgate in the checkout).\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", ["add words --fake", "key create app", "connection add team --token-env TEAM_TOKEN"]
)
def test_commands_that_set_up_a_gateway_create_it(
    hubgate: Command, settings: Settings, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("TEAM_TOKEN", "hf_" + "t0ken" * 6)
    made = hubgate(*command.split())
    assert made.status == 0, made.err
    assert "The admin key, shown only once: hg_" in made.err
    assert settings.database.exists()


def test_dry_run_without_a_gateway_creates_none_until_applied(
    hubgate: Command, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text("endpoints:\n  words: {source: fake}\n")
    planned = hubgate("config", "apply", str(file), "--dry-run")
    assert (planned.status, planned.out.splitlines()[0], planned.err) == (0, "add endpoint words", "")
    assert list(tmp_path.iterdir()) == [file]
    assert hubgate("config", "apply", str(file)).status == 0
    assert settings.database.exists()


@pytest.mark.parametrize("arguments", [(), ("key",), ("cache",)])
def test_help_is_shown_without_a_command(hubgate: Command, arguments: tuple[str, ...]) -> None:
    shown = hubgate(*arguments)
    assert shown.status == 2
    assert "Usage: " in shown.out + shown.err


def test_invalid_environment_variable_is_named(hubgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBGATE_PORT", "eighty")
    for arguments in (("list",), ("serve",)):
        failed = hubgate(*arguments)
        assert (failed.status, failed.out) == (1, "")
        assert failed.err == "hubgate: HUBGATE_PORT must be a whole number from 0 to 65535, not 'eighty'.\n"


def test_unusable_home_is_named(hubgate: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    job = ("job", "run", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), "--endpoint", "words")
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("HUBGATE_HOME", str(home))
        for arguments in (("list",), ("add", "words", "--fake"), ("serve",), job):
            failed = hubgate(*arguments)
            assert (failed.status, failed.out) == (1, "")
            assert failed.err == (
                f"hubgate: The home folder {home} cannot be used: it is a file, or is below one. "
                "Set HUBGATE_HOME to a folder that exists or can be created.\n"
            )


def test_address_of_another_machine_is_named(hubgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBGATE_HOST", "no.such.name.invalid")
    failed = hubgate("serve")
    assert failed.status == 1
    assert failed.err.startswith("hubgate: Cannot listen on no.such.name.invalid port 0: ")


@pytest.fixture
def answers(settings: Settings) -> Iterator[list[bytes]]:
    """The replies of a process that holds the lock of the home; further connections are closed."""
    given: list[bytes] = []
    with HomeLock(settings.home) as lock, socket.create_server(("127.0.0.1", 0)) as server:
        lock.announce(f"http://127.0.0.1:{server.getsockname()[1]}")

        def serve() -> None:
            while True:
                connection, _ = server.accept()
                with connection:
                    if not connection.recv(65536):
                        return
                    connection.sendall(given.pop(0) if given else b"")

        thread = threading.Thread(target=serve)
        thread.start()
        yield given
        socket.create_connection(server.getsockname()).close()
        thread.join()


def test_gateway_that_hangs_up_is_reported_in_one_line(hubgate: Command, answers: list[bytes]) -> None:
    failed = hubgate("list")
    assert (failed.status, failed.out) == (1, "")
    assert re.fullmatch(r"hubgate: The gateway at http://\S+ does not respond: .*\n", failed.err)


def test_internal_error_is_reported_in_one_line_without_debug_logging(
    hubgate: Command, answers: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers += [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"] * 2
    failed = hubgate("list")
    assert failed.status == 1
    assert (
        failed.err
        == "hubgate: Internal error (KeyError). Run it again with HUBGATE_LOG_LEVEL=debug for the traceback.\n"
    )
    monkeypatch.setenv("HUBGATE_LOG_LEVEL", "debug")
    with pytest.raises(KeyError):
        hubgate("list")


def test_ctrl_c_exits_with_130_and_without_output(tmp_path: Path) -> None:
    """It is interrupted while it reads standard input."""
    program = "from hubgate.cli import main; print(flush=True); main(['chunk'])"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        assert waiting.stdin is not None
        assert waiting.stdout is not None
        waiting.stdin.write('{"text": "a"}\n')
        waiting.stdin.flush()
        assert waiting.stdout.readline() == "\n"
        assert "utf16" in waiting.stdout.readline()
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=240)
    assert waiting.returncode == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize(
    ("place", "told"),
    [("pipe", ""), ("/dev/full", "hubgate: Cannot write the output: No space left on device.\n")],
)
def test_output_that_cannot_be_written_is_not_blamed_on_the_gateway(
    settings: Settings, place: str, told: str, runs: bool
) -> None:
    if place == "pipe":
        reader, out = os.pipe()
        os.close(reader)  # as `head` does once it has enough
    elif Path(place).exists():
        out = os.open(place, os.O_WRONLY)
    else:
        pytest.skip("this system has no such device")
    with RunningGateway(settings) as gateway:
        gateway.add("words")
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, out)
        if runs:
            stack.enter_context(RunningGateway(settings))
        ran = subprocess.run(
            [sys.executable, "-u", "-c", "from hubgate.cli import main; main(['usage', '--csv'])"],
            env={
                **os.environ,
                "HUBGATE_HOME": str(settings.home),
                "HUBGATE_SECRET_KEY_FILE": str(settings.secret_key_file),
            },
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=240,
            check=False,
        )
    assert (ran.returncode, ran.stderr) == (1, told)


def test_characters_unknown_to_the_terminal_are_escaped() -> None:
    program = "from hubgate.cli import main; main(['add', '--help'])"
    ran = subprocess.run(
        [sys.executable, "-c", f"print(end='')\n{program}"],
        env={"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert "Usage: " in ran.stdout


def test_every_option_is_documented() -> None:
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    missing = [
        option
        for group in groups
        if group
        for option in _options(group)
        if not re.search(rf"{option}\b", REFERENCE)
    ]
    assert missing == []


def _options(group: typer.Typer) -> Iterator[str]:
    command = typer.main.get_command(group)
    commands = getattr(command, "commands", {}).values()
    for one in commands:
        for parameter in one.params:
            yield from (name for name in parameter.opts if name.startswith("--"))
