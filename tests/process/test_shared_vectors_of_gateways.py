"""Two gateways in processes of their own that share their vectors."""

from __future__ import annotations

import re
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from gateway_process import Home
from lookalikes import lookalike

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway_process import GatewayProcess
    from lookalikes import LookAlike
    from servers.valkey import ValkeyServer

PASSWORD = "hidden-password"


def add(gateway: GatewayProcess, server: LookAlike, key: str) -> None:
    form = {"name": "e5", "url": server.url, "task": "text_embedding"}
    reply = gateway.request("POST", "/api/endpoints", form, key=key)
    assert reply.status == 201, reply.body


def test_text_embedded_at_one_gateway_is_not_embedded_again_at_another(
    prepared_folder: Path, tmp_path: Path, new_valkey: Callable[..., ValkeyServer]
) -> None:
    key = secrets.token_urlsafe(24)
    valkey = new_valkey("--requirepass", PASSWORD)
    homes = [Home(tmp_path / name, key) for name in ("one", "two")]
    for home, name in zip(homes, ("one", "two"), strict=True):
        shutil.copytree(prepared_folder, tmp_path / name)  # with the same secret key
        home.env["HUBGATE_CACHE_URL"] = valkey.url.replace("//", f"//:{PASSWORD}@")
    with ExitStack() as stack:
        server = stack.enter_context(lookalike("tei"))
        one, two = (stack.enter_context(home.serve()) for home in homes)
        for gateway in (one, two):
            add(gateway, server, key)

        def is_embedded_once(text: str) -> bool:
            """It may be embedded twice: a busy machine may take longer than lookups wait."""
            replies = [gateway.embed("e5", text, key=key) for gateway in (one, two)]
            assert [reply.status for reply in replies] == [200, 200]
            first, second = (reply.json()["data"][0]["embedding"] for reply in replies)
            assert second == pytest.approx(first, rel=1e-6)
            return [batch for batch in server.batches if text in batch] == [[text]]

        assert any(is_embedded_once(f"text {number}") for number in range(200))
        stats = two.request("GET", "/api/cache", key=key).json()
        assert stats["shared"]["hits"] >= 1
        assert stats["shared"]["server"] == f"127.0.0.1:{valkey.port}"
        assert f"shared 127.0.0.1:{valkey.port}, " in " ".join(homes[0].run("cache", "stats").out.split())
        counted = two.request("GET", "/metrics", key=key).body.decode()
        assert re.search(r'hubgate_stored_vectors_hits_total\{place="shared"\} [1-9]', counted)
        assert not (tmp_path / "one" / "data" / "vectors").exists()
        valkey.kill()
        for number in range(5):
            assert one.embed("e5", f"later {number}", key=key).status == 200
        assert homes[0].run("cache", "clear").status != 0
        assert PASSWORD not in one.output + two.output


def test_text_that_two_requests_need_at_once_is_embedded_once(home: Home) -> None:
    with lookalike("tei") as server, home.serve() as gateway, ThreadPoolExecutor(2) as threads:
        add(gateway, server, home.admin_key)
        server.fail("hang", method="POST")
        before = len(server.posts)
        first = threads.submit(gateway.embed, "e5", "the same", key=home.admin_key)
        server.wait_until(lambda server: len(server.posts) > before)
        second = threads.submit(gateway.embed, "e5", "the same", key=home.admin_key)
        while "hubgate_requests_in_flight 3.0" not in metrics(gateway, home):  # with that of the metrics
            pass
        server.heal()
        assert [first.result().status, second.result().status] == [200, 200]
        assert len(server.posts) == before + 1
        assert 'hubgate_cache_hits_total{endpoint="e5"} 1.0' in metrics(gateway, home)


def metrics(gateway: GatewayProcess, home: Home) -> str:
    return gateway.request("GET", "/metrics", key=home.admin_key).body.decode()
