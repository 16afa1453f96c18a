"""Custom CA certificates."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from certificates import server_context, write_certificate
from http_client import open_http_client
from lookalikes import lookalike

from hubgate.domain.errors import Cause, InvalidEndpoint, UpstreamUnreachable
from hubgate.upstreams.http.messages import HttpRequest

if TYPE_CHECKING:
    from pathlib import Path


def get(url: str, ca_bundle: str | None = None) -> HttpRequest:
    return HttpRequest(method="GET", url=url, ca_bundle=ca_bundle)


async def test_certificate_is_trusted_when_its_file_is_configured(tmp_path: Path) -> None:
    path = write_certificate(tmp_path)
    with lookalike("tei", tls=server_context(path)) as server:
        async with open_http_client() as client:
            with pytest.raises(UpstreamUnreachable) as caught:
                await client.send(get(server.url))
            assert caught.value.cause is Cause.TLS_FAILED
            assert (await client.send(get(server.url + "/health", ca_bundle=str(path)))).status == 200


async def test_changed_certificate_file_is_reloaded(tmp_path: Path) -> None:
    path = write_certificate(tmp_path)
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("nothing yet")
    with lookalike("tei", tls=server_context(path)) as server:
        async with open_http_client() as client:
            asked = get(server.url + "/health", ca_bundle=str(bundle))
            with pytest.raises(InvalidEndpoint):
                await client.send(asked)
            bundle.write_bytes(path.read_bytes())
            os.utime(bundle, ns=(1, 1))
            assert (await client.send(asked)).status == 200


async def test_missing_certificate_file_is_reported() -> None:
    async with open_http_client() as client:
        with pytest.raises(InvalidEndpoint, match=r"\[ca_bundle\]"):
            await client.send(get("https://127.0.0.1:9", ca_bundle="/nowhere/ca.pem"))
