"""Environments under build/bench for other gateways, made from the locks of requirements/peers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_LOCKS = _ROOT / "requirements" / "peers"
_MADE = _ROOT / "build" / "bench" / "peers"


def python_environment(name: str) -> Path:
    """The environment of a Python package and what it needs.

    Raises:
        SystemExit: it cannot be installed here.
    """
    lock, folder = _LOCKS / f"{name}.txt", _MADE / name
    if not _is_current(folder, lock):
        print(f"Installing {name} (once) …", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _call(sys.executable, "-m", "venv", str(folder))
        pip = (
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        )
        _call(*pip, "--no-deps", "--require-hashes", "--requirement", str(lock))
        shutil.copy(lock, folder / lock.name)
    return folder


def node_environment(name: str) -> Path:
    """The folder of a package of npm and what it needs.

    Raises:
        SystemExit: it cannot be installed here.
    """
    lock, folder = _LOCKS / name / "package-lock.json", _MADE / name
    if not _is_current(folder, lock):
        print(f"Installing {name} (once) …", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(lock.parent, folder)
        try:
            _call("npm", "ci", "--prefix", str(folder), "--ignore-scripts", "--silent", "--omit=dev")
        except SystemExit:
            shutil.rmtree(folder)
            raise
    return folder


def locked_version(name: str) -> str:
    """The version of a Python package in its lock."""
    found = re.search(rf"^{name}==(\S+)", (_LOCKS / f"{name}.txt").read_text("utf-8"), re.MULTILINE)
    assert found, name
    return found[1]


def _is_current(folder: Path, lock: Path) -> bool:
    copy = folder / lock.name
    return copy.exists() and copy.read_bytes() == lock.read_bytes()


def _call(*command: str) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=1200, check=True)
    except FileNotFoundError:
        raise SystemExit(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines()
        raise SystemExit(
            f"{Path(command[0]).name} failed: {lines[-1] if lines else error.returncode}"
        ) from None
