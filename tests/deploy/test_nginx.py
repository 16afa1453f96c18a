"""The shipped configuration of nginx, run by a real nginx in front of three real gateways."""

from __future__ import annotations

import json
import shutil
import signal
import urllib.request
from contextlib import ExitStack
from typing import TYPE_CHECKING

from gateway_process import Home
from lookalikes import LookAlike, lookalike

from deploy.nginx import nginx_before
from deploy.steady_load import SteadyLoad

if TYPE_CHECKING:
    from pathlib import Path


def test_nginx_passes_streams_on_and_a_gateway_that_stops_under_load_fails_no_call(
    prepared_folder: Path, tmp_path: Path
) -> None:
    homes = []
    for number in range(3):
        folder = tmp_path / str(number)
        shutil.copytree(prepared_folder, folder)
        homes.append(Home(folder, "the-same-admin-key-for-all"))
    key = homes[0].admin_key
    with ExitStack() as stack, lookalike("vllm", kind="llm") as server:
        gateways = [stack.enter_context(home.serve(HUBGATE_DRAIN_DELAY="1")) for home in homes]
        writer = {"name": "writer", "task": "chat_completion", "url": server.url}
        for gateway in gateways:
            added = gateway.request("POST", "/api/endpoints", writer, key=key)
            assert added.status == 201, added.body
        url = stack.enter_context(nginx_before([gateway.url for gateway in gateways], tmp_path))
        check_stream(url, key, server)
        with (
            SteadyLoad([url], key=key, model="words", callers=12) as load,
            SteadyLoad([url], key=key, model="words", callers=4, keep_alive=False) as newcomers,
        ):
            load.wait_for(20)
            gateways[1].signal(signal.SIGTERM)
            assert gateways[1].wait() == 0
            load.wait_for(20)
            newcomers.wait_for(20)
        assert load.failures + newcomers.failures == []


def check_stream(url: str, key: str, server: LookAlike) -> None:
    """The first words arrive while the model's server waits before the last ones."""
    server.fail("stall")
    chat = {"model": "writer", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(chat).encode(), headers)
    with urllib.request.urlopen(request, timeout=240) as reply:
        assert reply.readline().startswith(b"data: {")
        server.heal()
        reply.read()
