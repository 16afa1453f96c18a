"""`pip install hubgate` gets versions that were tested, and none with a known vulnerability."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([^ ;\\]+)", re.MULTILINE)


def floors() -> dict[str, Version]:
    """The lowest version of each dependency that pyproject.toml allows, in the base install and the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    found: dict[str, Version] = {}
    for requirement in (Requirement(line) for lines in lists for line in lines):
        if requirement.name == project["name"]:
            continue
        lowest = [Version(one.version) for one in requirement.specifier if one.operator == ">="]
        assert len(lowest) == 1, requirement
        found[canonicalize_name(requirement.name)] = lowest[0]
    return found


def locked() -> dict[str, Version]:
    """The locked version of each package; the lowest, if it depends on the version of Python."""
    pins: dict[str, Version] = {}
    for name in ("serve", "dev", "ray"):
        for package, version in _PIN.findall((ROOT / "requirements" / f"{name}.txt").read_text("utf-8")):
            key = canonicalize_name(package)
            pins[key] = min(pins.get(key, Version(version)), Version(version))
    return pins


def test_every_floor_is_the_version_that_is_locked_and_tested() -> None:
    pins = locked()
    tested = {name: floor for name, floor in floors().items() if name in pins}
    assert len(tested) > 20
    assert tested == {name: pins[name] for name in tested}


def test_no_floor_and_no_lock_admits_a_version_with_a_known_vulnerability() -> None:
    advisories = tomllib.loads((ROOT / "tests/data/advisories.toml").read_text("utf-8"))
    allowed, pins = floors(), locked()
    for package, fixes in advisories.items():
        for version, reason in fixes.items():
            assert allowed[package] >= Version(version), f"{package}: {reason}"
            assert pins[package] >= Version(version), f"{package}: {reason}"
