"""Which folders the API accepts as a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from running_gateway import RunningGateway


@pytest.mark.parametrize("model", ["~nosuchuser/x", "a" * 5000, "/" + "b/" * 3000, "/x\0y"])
def test_unusable_path_gives_a_clear_error(gateway: RunningGateway, model: str) -> None:
    reply = gateway.request("POST", "/api/endpoints", {"name": "odd", "model": model})
    error = reply.json()["error"]
    assert reply.status == 400, error
    assert error["message"].startswith("The folder ")
    assert len(error["message"]) < 400


@pytest.mark.parametrize(
    "model", ["/proc/self/cwd", "/proc/1/root", "/sys", "/dev/fd", "{tmp}/link", "/usr/../proc/1"]
)
def test_system_folders_are_rejected_as_models(gateway: RunningGateway, model: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    reply = gateway.request("POST", "/api/endpoints", {"name": "odd", "model": model.format(tmp=tmp_path)})
    assert reply.status == 400, reply.body
    assert reply.json()["error"]["message"] == "A model cannot be in /proc, /sys, /dev."


def test_symlink_loop_gives_a_clear_error(gateway: RunningGateway, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    reply = gateway.request("POST", "/api/endpoints", {"name": "odd", "model": str(tmp_path / "loop")})
    assert 400 <= reply.status < 500, reply.body
