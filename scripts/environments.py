"""Separate environments under build/, for packages that conflict with those of hubgate."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def environment_of(
    folder: Path, interpreter: str, *steps: Sequence[str], without: Sequence[str] = ()
) -> Path:
    """The Python of an environment, recreated if it has other packages.

    Args:
        folder: where it is kept.
        interpreter: the Python that it is made of.
        steps: the packages, in the order in which they are to be installed; each step keeps what the former ones chose.
        without: what is taken out again that came along.

    Raises:
        subprocess.CalledProcessError: it could not be made; pip's words are in `stderr`.
    """
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(package for step in steps for package in step)
    if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        _call(interpreter, "-m", "venv", str(folder))
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for last in range(len(steps)):
            _call(*pip, *(package for step in steps[: last + 1] for package in step))
        if without:
            _call(str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *without)
        installed.write_text(wanted, encoding="utf-8")
    return python


def node_of(folder: Path, packages: Sequence[str]) -> str:
    """Node.js, with packages of npm installed in a folder, where a script of theirs must be copied.

    Raises:
        FileNotFoundError: Node.js or npm is not installed.
        subprocess.CalledProcessError: the packages could not be installed.
    """
    installed, wanted = folder / "installed.txt", "\n".join(packages)
    if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _call("npm", "install", "--prefix", str(folder), "--silent", "--no-audit", "--no-fund", *packages)
        installed.write_text(wanted, encoding="utf-8")
    return "node"


def find_python(least: tuple[int, int]) -> str | None:
    """An interpreter that is new enough: this one, one on the path, or one of pyenv's."""
    on_path = [found for minor in range(11, 16) if (found := shutil.which(f"python3.{minor}"))]
    of_pyenv = [str(path) for path in sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin/python"))]
    for candidate in (sys.executable, *on_path, *of_pyenv):
        version = subprocess.run(
            [candidate, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        # One of pyenv's shims fails where its version is not switched on.
        if version.returncode == 0 and tuple(map(int, version.stdout.split())) >= least:
            return candidate
    return None


def _call(*command: str) -> None:
    subprocess.run(command, capture_output=True, text=True, timeout=1200, check=True)
