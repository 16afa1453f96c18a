"""The wheel of the source distribution, with and without a C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = "hubgate/core/vector_codec/compiled.abi3.so"
CAN_COMPILE = shutil.which("cc") and Path(sysconfig.get_path("include"), "Python.h").exists()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    build("sdist", ROOT, folder)
    [archive] = folder.glob("*.tar.gz")
    # `tarfile` has its filters only since Python 3.11.4.
    subprocess.run(["tar", "-xf", archive], cwd=folder, check=True)
    [source] = (path for path in folder.iterdir() if path.is_dir())
    return source


def build(target: str, source: Path, folder: Path, **environment: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, env=os.environ | environment, check=True, capture_output=True)


def wheel(source: Path, folder: Path, **environment: str) -> Path:
    build("wheel", source, folder, **environment)
    [path] = folder.glob("*.whl")
    return path


def test_wheel_is_pure_without_a_compiler(source: Path, tmp_path: Path) -> None:
    path = wheel(source, tmp_path, CC="no-such-compiler")
    assert path.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(path).namelist()
    assert LIBRARY not in names
    assert "hubgate/core/vector_codec/pure.py" in names


@pytest.mark.skipif(not CAN_COMPILE, reason="there is no C compiler, or no Python.h")
def test_wheel_has_the_compiled_part_and_the_tag_of_its_platform(source: Path, tmp_path: Path) -> None:
    path = wheel(source, tmp_path)
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if sys.platform == "linux":
        assert path.name.endswith(f"-cp311-abi3-{platform}.whl")
    with zipfile.ZipFile(path) as content:
        assert not [name for name in content.namelist() if name.endswith(".c")]
    shutil.unpack_archive(path, tmp_path / "installed", "zip")
    program = "from hubgate.core import vector_codec; print(vector_codec.IS_COMPILED, vector_codec.__file__)"
    environment = {"PYTHONPATH": str(tmp_path / "installed")}
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    assert printed.stdout.startswith(f"True {tmp_path}")
