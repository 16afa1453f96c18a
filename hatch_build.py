"""Compiles `core/vector_codec/compiled.c` for the wheel. Without a C compiler, the wheel is pure Python.

One source file needs no build system beside hatchling: this calls `cc`, or `$CC`.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCE = Path("src/hubgate/core/vector_codec/compiled.c")
_ON_MACOS = sys.platform == "darwin"
# -ffp-contract=off: a fused multiply-add rounds once where Python rounds twice.
_FLAGS = ["-O3", "-ffp-contract=off", "-fPIC"]
_FLAGS += ["-bundle", "-undefined", "dynamic_lookup"] if _ON_MACOS else ["-shared"]


class CompiledPart(BuildHookInterface[Any]):
    """The build hook of the wheel, an editable one included."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Compile, and tag the wheel for what was compiled: this platform, and Python 3.11 or later."""
        source = Path(self.root) / _SOURCE
        library = source.with_name("compiled.abi3.so")
        library.unlink(missing_ok=True)
        problem = _compile(source, library)
        if problem:
            self.app.display_warning(f"hubgate is built without its compiled part: {problem}")
            return
        build_data["artifacts"].append(f"/{library.relative_to(self.root).as_posix()}")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{_platform()}"


def _compile(source: Path, library: Path) -> str | None:
    """What went wrong, if anything did."""
    if sys.implementation.name != "cpython" or os.name != "posix":
        return "it needs CPython on Linux or macOS."
    command = [*shlex.split(os.environ.get("CC", "cc")), *_FLAGS, f"-I{sysconfig.get_path('include')}"]
    try:
        subprocess.run(
            [*command, str(source), "-o", str(library)], check=True, capture_output=True, text=True
        )
    except OSError as error:
        return f"there is no C compiler ({error})."
    except subprocess.CalledProcessError as error:
        return f"the C compiler failed.\n{error.stderr}"
    return None


def _platform() -> str:
    """In a wheel's tag. The compiler builds for this machine only, also if Python itself runs on others."""
    name = sysconfig.get_platform().replace("universal2", platform.machine())
    return name.replace("-", "_").replace(".", "_")
