"""On a full disk the vector cache shrinks, keys can still be revoked, and everything can be read."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from console_client import ConsoleClient
from running_gateway import Reply, RunningGateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hubgate.settings import Settings

REPORTS = (
    "usage?by=endpoint", "usage?by=endpoint&format=csv", "audit", "keys", "endpoints", "cache", "connections", "aliases",
    "jobs", "files", "config", "gates",
)  # fmt: skip
PAGES = ("models", "keys", "usage", "usage.csv", "settings", "jobs", "aliases", "audit")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    place = tmp_path / "disk"
    place.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "none", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def full(settings: Settings, disk: Path) -> Settings:
    return replace(settings, home=disk / "home")


def fill(disk: Path) -> Path:
    """Take all that is left of a disk."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


def embed(gateway: RunningGateway, start: int) -> None:
    texts = [f"text {number}" for number in range(start, start + 500)]
    assert gateway.request("POST", "/v1/embeddings", {"model": "fake", "input": texts}).status == 200


def alive(gateway: RunningGateway, key: str) -> bool:
    return gateway.request("GET", "/v1/models", key=key).status == 200


def test_cache_leaves_room_for_the_database_and_shrinks_for_it(full: Settings, disk: Path) -> None:
    with RunningGateway(full) as gateway:
        gateway.add(dimensions=4096)
        for start in range(0, 2000, 500):
            embed(gateway, start)
        key = gateway.create_key("leaked")
        entries = 0
        while entries != (entries := gateway.request("GET", "/api/cache").json()["disk"]["entries"]):
            time.sleep(0.3)  # while vectors are being written, the cache would empty itself for the filler
        assert entries > 0
        left = os.statvfs(disk)
        assert left.f_bavail * left.f_frsize > 2_400_000  # the reserve is a tenth
        filler = fill(disk)
        assert gateway.request("DELETE", "/api/keys/leaked").status == 204
        assert not alive(gateway, key)
        assert not full.vectors.exists() or full.vectors.stat().st_size < 100_000
        filler.unlink()
        admin = gateway.admin_key
    with RunningGateway(full) as gateway:
        gateway.admin_key = admin
        assert not alive(gateway, key)


def test_revocation_on_a_full_disk_is_enforced_until_it_can_be_stored(full: Settings, disk: Path) -> None:
    with RunningGateway(replace(full, cache_bytes=0)) as gateway:
        key = gateway.create_key("leaked")
        filler = fill(disk)
        while (again := gateway.request("POST", "/api/keys", {"name": os.urandom(8).hex()})).status == 201:
            fill(disk)
        assert again.status == 503
        assert "Free some space" in again.json()["error"]["remedy"]
        reply = gateway.request("DELETE", "/api/keys/leaked")
        assert reply.status == 503, reply.body
        assert "is revoked, but this could not be stored" in reply.json()["error"]["message"]
        assert not alive(gateway, key)
        assert gateway.request("DELETE", "/api/keys/leaked").status == 503
        filler.unlink()
        assert gateway.request("DELETE", "/api/keys/leaked").status == 204
        assert gateway.request("DELETE", "/api/keys/leaked").status == 404
        admin = gateway.admin_key
    with RunningGateway(full) as gateway:
        gateway.admin_key = admin
        assert not alive(gateway, key)


def test_pending_revocation_is_stored_without_another_request(full: Settings, disk: Path) -> None:
    with RunningGateway(replace(full, cache_bytes=0)) as gateway:
        key = gateway.create_key("leaked")
        filler = fill(disk)
        while gateway.request("POST", "/api/keys", {"name": os.urandom(8).hex()}).status == 201:
            fill(disk)
        assert gateway.request("DELETE", "/api/keys/leaked").status == 503
        filler.unlink()
        admin = gateway.admin_key
    with RunningGateway(full) as gateway:
        gateway.admin_key = admin
        assert not alive(gateway, key)


def test_an_upload_on_a_full_disk_is_a_503_with_its_reason_and_leaves_nothing(
    full: Settings, disk: Path
) -> None:
    with RunningGateway(replace(full, cache_bytes=0)) as gateway:
        assert upload(gateway, b"{}").status == 200
        filler = fill(disk)
        for size in (100, 100_000, 3_000_000):
            reply = upload(gateway, b"x" * size)
            assert reply.status == 503, reply.body
            assert "No space left on device" in reply.json()["error"]["message"]
        assert len([path for path in full.files.iterdir() if path.name != ".folder"]) == 1
        filler.unlink()
        assert upload(gateway, b"{}").status == 200


def test_on_a_full_disk_reports_can_be_read_and_the_cache_be_cleared(full: Settings, disk: Path) -> None:
    with RunningGateway(full) as gateway:
        gateway.add(dimensions=8)
        console = ConsoleClient(gateway)
        console.sign_in()
        file = upload(gateway, b"x" * 500_000).json()["id"]
        filler = fill(disk)
        while gateway.request("POST", "/api/keys", {"name": os.urandom(8).hex()}).status == 201:
            fill(disk)
        embed(gateway, 0)
        reports = {path: gateway.request("GET", f"/api/{path}") for path in REPORTS}
        pages = {path: console.get(f"/ui/{path}") for path in PAGES}
        cleared = gateway.request("DELETE", "/api/cache")
        deleted = gateway.request("DELETE", f"/v1/files/{file}")
        filler.unlink()
    assert {path: reply.status for path, reply in reports.items()} == dict.fromkeys(REPORTS, 200)
    assert reports["usage?by=endpoint"].json()["rows"][0]["texts"] == 500
    assert b"fake," in reports["usage?by=endpoint&format=csv"].body
    assert {path: page.status for path, page in pages.items()} == dict.fromkeys(PAGES, 200)
    assert cleared.status == 204
    assert deleted.status == 200


def upload(gateway: RunningGateway, content: bytes) -> Reply:
    head = b'--edge\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    body = head % (b"purpose", b"", b"batch") + head % (b"file", b'; filename="a"', content) + b"--edge--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=edge"}
    return gateway.request("POST", "/v1/files", body, headers=headers)
