"""One hubgate per home: a running hubgate holds a lock, and announces its URL to the command line."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from hubgate.domain.errors import StoreFailed
from hubgate.files import create_private_folder, is_locked, take_lock, write_private

_NO_FOLDER = frozenset({errno.EEXIST, errno.ENOTDIR})
_REMEDIES = {
    errno.EACCES: "Run hubgate as the user that owns it, or set HUBGATE_HOME to another folder.",
    errno.EPERM: "Run hubgate as the user that owns it, or set HUBGATE_HOME to another folder.",
    errno.EEXIST: "Set HUBGATE_HOME to a folder that exists or can be created.",
    errno.ENOTDIR: "Set HUBGATE_HOME to a folder that exists or can be created.",
    errno.ENOSPC: "Free some space, or set HUBGATE_HOME to a folder on another disk.",
    errno.EDQUOT: "Free some space, or set HUBGATE_HOME to a folder on another disk.",
}
_LOCK, _ANNOUNCEMENT, _IDENTITY = "gate.lock", "gate.json", "gate.id"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGateway:
    """The URL of a running hubgate, and an admin key that is valid while it runs."""

    url: str
    pid: int
    key: str = field(repr=False)


class HomeLock:
    """The lock of a home, as a context manager. The kernel frees it however the process ends."""

    def __init__(self, home: Path, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._home = home
        self._sleep = sleep
        self._held: int | None = None

    def __enter__(self) -> Self:
        """Raises StoreFailed: another hubgate has the lock, or the home cannot be used."""
        try:
            create_private_folder(self._home)
            _refuse_shared(self._home)
            self._held = take_lock(self._home / _LOCK, sleep=self._sleep)
            if self._held is None:
                raise StoreFailed(
                    f"Another gateway runs in {self._home}.",
                    remedy="Use that one, stop it, or set HUBGATE_HOME to another folder for this one.",
                )
            (self._home / _ANNOUNCEMENT).unlink(missing_ok=True)  # of a gateway that was killed
        except OSError as error:
            self._free()
            raise home_error(self._home, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # it is not read without a lock
            (self._home / _ANNOUNCEMENT).unlink(missing_ok=True)
        self._free()

    def announce(self, url: str, key: str | None = None) -> str:
        """Write the URL and an admin key for the command line, by default a new one; returns the key.

        Raises:
            StoreFailed: the home cannot be written.
        """
        running = RunningGateway(url=url, pid=os.getpid(), key=key or secrets.token_urlsafe(32))
        try:
            write_private(self._home / _ANNOUNCEMENT, msgspec.json.encode(running))
        except OSError as error:
            raise home_error(self._home, error) from error
        return running.key

    def _free(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


def gateway_id(home: Path) -> str:
    """By which other gateways know the one that holds the lock of this home, also after it was killed and restarted.

    The lock proves that the one before is gone. A home that was copied to another machine gets a new id.
    """
    host, file = socket.gethostname(), home / _IDENTITY
    with contextlib.suppress(OSError, ValueError):
        known, former_host = file.read_text(encoding="utf-8").split()
        if former_host == host:
            return known
    new = secrets.token_hex(8)
    with contextlib.suppress(OSError):  # then a restart gets another one
        write_private(file, f"{new} {host}".encode())
    return new


def _refuse_shared(home: Path) -> None:
    if home.stat().st_mode & stat.S_IWOTH:
        raise StoreFailed(
            f"Every user of this machine can write to the home folder {home} and replace its database.",
            remedy=f"Run: chmod o-w {home}. Or set HUBGATE_HOME to another folder.",
        )


def running_gateway(home: Path) -> RunningGateway | None:
    """The hubgate that runs in this home, if any. What a killed one left behind does not count.

    Raises:
        StoreFailed: it is starting or stopping (retryable), or belongs to another user.
    """
    try:
        if not is_locked(home / _LOCK):
            return None
        return msgspec.json.decode((home / _ANNOUNCEMENT).read_bytes(), type=RunningGateway)
    except (FileNotFoundError, msgspec.MsgspecError):
        raise StoreFailed(
            f"hubgate is just starting or stopping in {home}.",
            remedy="Try again in a moment.",
            retryable=True,
        ) from None
    except OSError as error:
        raise home_error(home, error) from error


def home_error(home: Path, error: OSError) -> StoreFailed:
    """The error for a home that cannot be used."""
    number = error.errno or 0
    reason = "it is a file, or is below one" if number in _NO_FOLDER else error.strerror or str(error)
    remedy = _REMEDIES.get(number, "Set HUBGATE_HOME to another folder.")
    return StoreFailed(f"The home folder {home} cannot be used: {reason}.", remedy=remedy)
