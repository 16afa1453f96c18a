"""The limit of open files is raised to fit the maximum number of connections."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from hubgate.cli.server.process import allow_open_files
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, min(hard, {hard})))
allow_open_files({connections})
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "then", "warned"),
    [
        (256, 4096, 1152, 2176, False),
        (3000, 4096, 1152, 3000, False),
        (256, 1000, 1152, 1000, True),
    ],
)
def test_soft_limit_is_raised_as_far_as_possible(
    soft: int, hard: int, connections: int, then: int, *, warned: bool
) -> None:
    script = SCRIPT.format(soft=soft, hard=hard, connections=connections)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == f"{then}\n"
    assert ("HUBGATE_MAX_CONNECTIONS" in ran.stderr) is warned
