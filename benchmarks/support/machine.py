"""The machine of a measurement, and the programs that it needs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

_PACKAGES = {"wrk": "wrk", "nginx": "nginx libnginx-mod-http-lua", "taskset": "util-linux"}
_LIBRARIES = ("hubgate", "uvicorn", "uvloop", "httptools", "msgspec", "orjson")


class Cores(NamedTuple):
    """Who runs where: what is measured has one core for itself, all else shares another."""

    measured: int
    load: int


def need(*programs: str) -> None:
    """Stop with what to install if a program is missing."""
    missing = [program for program in programs if shutil.which(program, path=_search_path()) is None]
    if missing:
        packages = " ".join(dict.fromkeys(_PACKAGES[program] for program in missing))
        sys.exit(
            f"This benchmark needs {' and '.join(missing)}. On Debian or Ubuntu: apt-get install {packages}"
        )


def program(name: str) -> str:
    """The path of a program that `need` has found."""
    found = shutil.which(name, path=_search_path())
    assert found is not None, name
    return found


def two_cores() -> Cores:
    """One core for what is measured and one for the rest; this process moves to the second, with all it starts."""
    if not hasattr(os, "sched_getaffinity"):
        sys.exit("This benchmark pins processes to cores and reads /proc: it runs on Linux only.")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("This benchmark needs two cores: one for what is measured, one for the load.")
    os.sched_setaffinity(0, {cores[1]})
    return Cores(cores[0], cores[1])


def facts() -> str:
    """One paragraph on this machine and the versions at hand."""
    lines = [
        f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    ]
    lines.append(", ".join(f"{name} {_version(name)}" for name in _LIBRARIES))
    if shutil.which("nginx", path=_search_path()):
        told = subprocess.run([program("nginx"), "-v"], capture_output=True, text=True, check=False).stderr
        lines.append(told.strip().removeprefix("nginx version: "))
    return "\n".join(lines)


def _search_path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
