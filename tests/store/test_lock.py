"""One gateway runs per home, and the command line finds it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from hubgate.domain.errors import StoreFailed
from hubgate.store.lock import HomeLock, gateway_id, home_error, running_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URL = "http://127.0.0.1:8080"
HOLD = """
import sys
from pathlib import Path
from hubgate.store.lock import HomeLock
with HomeLock(Path(sys.argv[1])) as lock:
    print(lock.announce("http://127.0.0.1:8080"), flush=True)
    sys.stdin.readline()
"""


def at_once(_: float) -> None:
    """Does not wait."""


@contextmanager
def other_process(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds the lock, and the key that it announced."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_finds_no_gateway_in_unused_home(tmp_path: Path) -> None:
    assert running_gateway(tmp_path / "home") is None
    assert not (tmp_path / "home").exists(), "to look makes nothing"


def test_other_processes_find_the_gateway_and_cannot_start_a_second(tmp_path: Path) -> None:
    with other_process(tmp_path) as (process, key):
        gateway = running_gateway(tmp_path)
        assert gateway is not None
        assert (gateway.url, gateway.pid, gateway.key) == (URL, process.pid, key)
        assert len(key) >= 43
        assert key not in repr(gateway)
        with (
            pytest.raises(StoreFailed, match="Another gateway runs") as refused,
            HomeLock(tmp_path, sleep=at_once),
        ):
            pass
        assert "HUBGATE_HOME" in refused.value.remedy
        assert running_gateway(tmp_path) == gateway, "the refused one took nothing away"


def test_stopped_gateway_releases_lock_and_removes_announcement(tmp_path: Path) -> None:
    with other_process(tmp_path) as (process, _):
        process.communicate("end\n", timeout=240)
        assert process.returncode == 0
    assert not (tmp_path / "gate.json").exists()
    assert running_gateway(tmp_path) is None


def test_ignores_files_left_by_a_killed_gateway(tmp_path: Path) -> None:
    with other_process(tmp_path) as (process, _):
        os.kill(process.pid, signal.SIGKILL)
        process.wait(240)
    assert (tmp_path / "gate.json").exists()
    assert running_gateway(tmp_path) is None
    with HomeLock(tmp_path) as lock:
        assert not (tmp_path / "gate.json").exists(), "the stale card is gone before the new one is written"
        key = lock.announce("http://127.0.0.1:9090")
        gateway = running_gateway(tmp_path)
        assert gateway is not None
        assert (gateway.url, gateway.key) == ("http://127.0.0.1:9090", key)


def test_announcement_is_private_and_each_run_has_its_own_key(tmp_path: Path) -> None:
    home = tmp_path / "home"
    keys = set()
    for _ in range(2):
        with HomeLock(home) as lock:
            keys.add(lock.announce(URL))
            for name in ("gate.json", "gate.lock"):
                assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
            assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert len(keys) == 2


def test_starting_gateway_is_a_retryable_error(tmp_path: Path) -> None:
    with HomeLock(tmp_path), pytest.raises(StoreFailed, match="just starting") as failed:
        running_gateway(tmp_path)
    assert failed.value.retryable


def test_rejects_invalid_announcement(tmp_path: Path) -> None:
    with HomeLock(tmp_path):
        (tmp_path / "gate.json").write_bytes(b'{"url": 7}')
        with pytest.raises(StoreFailed):
            running_gateway(tmp_path)


def test_start_waits_for_a_command_that_checks_the_lock(tmp_path: Path) -> None:
    looking = os.open(tmp_path / "gate.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)
    seen = []

    def look_away(seconds: float) -> None:
        seen.append(seconds)
        os.close(looking)

    with HomeLock(tmp_path, sleep=look_away):
        assert len(seen) == 1


def test_unusable_home_raises_store_error(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file where a folder should be")
    with pytest.raises(StoreFailed, match="cannot be used") as failed, HomeLock(home):
        pass
    assert "HUBGATE_HOME" in failed.value.remedy
    with pytest.raises(StoreFailed, match="cannot be used"):
        running_gateway(home)


@pytest.mark.parametrize(
    ("number", "reason", "remedy"),
    [
        (errno.EACCES, os.strerror(errno.EACCES), "Run hubgate as the user that owns it, or"),
        (errno.EEXIST, "it is a file, or is below one", "Set HUBGATE_HOME to a folder"),
        (errno.ENOSPC, os.strerror(errno.ENOSPC), "Free some space, or"),
        (errno.EROFS, os.strerror(errno.EROFS), "Set HUBGATE_HOME to another folder."),
    ],
)
def test_home_error_remedy_depends_on_the_cause(
    tmp_path: Path, number: int, reason: str, remedy: str
) -> None:
    failed = home_error(tmp_path, OSError(number, os.strerror(number)))
    assert failed.message == f"The home folder {tmp_path} cannot be used: {reason}."
    assert failed.remedy.startswith(remedy)


def test_inaccessible_announcement_raises_store_error(tmp_path: Path) -> None:
    with HomeLock(tmp_path) as lock:
        (tmp_path / "gate.json").mkdir()
        with pytest.raises(StoreFailed, match="cannot be used"):
            lock.announce(URL)
        with pytest.raises(StoreFailed, match="cannot be used"):
            running_gateway(tmp_path)


def test_gateway_keeps_its_id_in_its_home_and_a_copy_on_another_machine_gets_a_new_one(
    tmp_path: Path,
) -> None:
    first = gateway_id(tmp_path)
    assert gateway_id(tmp_path) == first
    (tmp_path / "gate.id").write_text(f"{first} another-host")
    assert gateway_id(tmp_path) != first
    assert gateway_id(tmp_path / "not there") != gateway_id(tmp_path / "not there")
