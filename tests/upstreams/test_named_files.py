"""Files named by the operator are read with size and time limits while the gateway stays responsive."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from lookalikes import lookalike

from hubgate.domain.errors import InvalidEndpoint, RuntimeFailed
from hubgate.upstreams.http.dial import tls_context
from hubgate.upstreams.local.files import in_model_folder
from hubgate.upstreams.named_files import in_own_thread, read_regular

if TYPE_CHECKING:
    from pathlib import Path

    from running_gateway import RunningGateway


def test_pipe_as_certificate_file_or_model_does_not_block(gateway: RunningGateway, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    folder = tmp_path / "model"
    folder.mkdir()
    os.mkfifo(folder / "config.json")
    with lookalike("tei") as server:
        for form, said in (
            ({"url": server.url.replace("http:", "https:"), "ca_bundle": str(pipe)}, "[ca_bundle]"),
            ({"url": server.url.replace("http:", "https:"), "ca_bundle": "/dev/zero"}, "[ca_bundle]"),
            ({"model": str(pipe)}, "There is no folder"),
            ({"model": str(folder)}, "config.json is not a file"),
        ):
            reply = gateway.request("POST", "/api/endpoints", {"name": "piped", **form})
            assert 400 <= reply.status < 500, reply.body
            assert said in reply.json()["error"]["message"]
            assert gateway.request("GET", "/healthz").status == 200


def test_oversized_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    assert read_regular(str(file), 3) == b"abc"
    with pytest.raises(OSError, match="larger than 2 bytes"):
        read_regular(str(file), 2)


async def test_certificate_file_without_certificates_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "empty.pem"
    for content in (b"", "# nur ein Kommentar über nichts\n".encode()):
        file.write_bytes(content)
        with pytest.raises(InvalidEndpoint, match=r"\[ca_bundle\]"):
            await tls_context(str(file))


async def test_unresponsive_disk_does_not_block() -> None:
    answer = threading.Event()
    try:
        with pytest.raises(RuntimeFailed, match=r"could not be read within 0\.01 seconds"):
            await in_model_folder("/mnt/dead", answer.wait, 0.01)
        for _ in range(40):
            with pytest.raises(TimeoutError):
                await in_own_thread(answer.wait, 0.01)
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("named-file") <= 32
    finally:
        answer.set()
        for thread in threading.enumerate():
            if thread.name == "named-file":
                thread.join()
    assert await in_own_thread(lambda: "again") == "again"
