"""One gate a home: while it runs it holds a lock, and tells the command line where it answers."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
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
    errno.EACCES: "Run hubgate as the user that owns it, or name another folder in HUBGATE_HOME.",
    errno.EPERM: "Run hubgate as the user that owns it, or name another folder in HUBGATE_HOME.",
    errno.EEXIST: "Name a folder in HUBGATE_HOME, one that is there or a new one.",
    errno.ENOTDIR: "Name a folder in HUBGATE_HOME, one that is there or a new one.",
    errno.ENOSPC: "Make room, or name a folder on another disk in HUBGATE_HOME.",
    errno.EDQUOT: "Make room, or name a folder on another disk in HUBGATE_HOME.",
}
_LOCK, _CARD = "gate.lock", "gate.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGateway:
    """Where a running gate answers, and a key with admin rights that lives as long as it runs."""

    url: str
    pid: int
    key: str = field(repr=False)


class HomeLock:
    """The lock of a home, held inside `with`. The kernel frees it however the process ends.

    It belongs to the open file, so a child made by a bare fork would keep it: start workers by spawning.
    """

    def __init__(self, home: Path, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._home = home
        self._sleep = sleep
        self._held: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            StoreFailed: another gate has it, or the home cannot be used.
        """
        try:
            create_private_folder(self._home)
            _refuse_shared(self._home)
            self._held = take_lock(self._home / _LOCK, sleep=self._sleep)
            if self._held is None:
                raise StoreFailed(
                    f"Another gateway runs in {self._home}.",
                    remedy="Use that one, stop it, or set HUBGATE_HOME to another folder for this one.",
                )
            (self._home / _CARD).unlink(missing_ok=True)  # of a gateway that was killed
        except OSError as error:
            self._free()
            raise home_error(self._home, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the card away, and let go."""
        with contextlib.suppress(OSError):  # a card without a lock is read by nobody
            (self._home / _CARD).unlink(missing_ok=True)
        self._free()

    def announce(self, url: str) -> str:
        """Tell the command line where this gate answers; the key that it will use.

        Raises:
            StoreFailed: the home cannot be written.
        """
        gate = RunningGateway(url=url, pid=os.getpid(), key=secrets.token_urlsafe(32))
        try:
            write_private(self._home / _CARD, msgspec.json.encode(gate))
        except OSError as error:
            raise home_error(self._home, error) from error
        return gate.key

    def _free(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _refuse_shared(home: Path) -> None:
    if home.stat().st_mode & stat.S_IWOTH:
        raise StoreFailed(
            f"Every user of this machine can write to the gateway's home {home}, and replace its database.",
            remedy=f"Run: chmod o-w {home}. Or set HUBGATE_HOME to a folder of its own.",
        )


def running_gateway(home: Path) -> RunningGateway | None:
    """The gate that runs in this home, if one does; what a killed one left behind does not count.

    Raises:
        StoreFailed: one is just starting or stopping (retryable), or it is another user's.
    """
    try:
        if not is_locked(home / _LOCK):
            return None
        return msgspec.json.decode((home / _CARD).read_bytes(), type=RunningGateway)
    except (FileNotFoundError, msgspec.MsgspecError):
        raise StoreFailed(
            f"The gate in {home} is just starting or stopping.",
            remedy="Try again in a moment.",
            retryable=True,
        ) from None
    except OSError as error:
        raise home_error(home, error) from error


def home_error(home: Path, error: OSError) -> StoreFailed:
    """The error for a home that the system does not let be used, with what helps against it."""
    number = error.errno or 0
    reason = "it is a file, or lies below one" if number in _NO_FOLDER else error.strerror or str(error)
    remedy = _REMEDIES.get(number, "Name another folder in HUBGATE_HOME.")
    return StoreFailed(f"The gate's home {home} cannot be used: {reason}.", remedy=remedy)
