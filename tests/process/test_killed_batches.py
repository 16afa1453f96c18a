"""A batch survives `kill -9` of the gateway, and no answered request is sent again. After two of them it is paused."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest
from batch_files import answered, batch_input, create_batch, lines_of, texts, wait_for_end
from lookalikes import lookalike
from running_gateway import eventually

if TYPE_CHECKING:
    from gateway_process import GatewayProcess, Home
    from lookalikes import LookAlike

ROWS = 300
IN_FLIGHT = 64


def client_of(gateway: GatewayProcess, home: Home) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=home.admin_key, max_retries=0)


def received(server: LookAlike) -> list[str]:
    return [text for batch in server.batches for text in batch if text.startswith("text number")]


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_gateway_continues_its_batches(home: Home, stop: signal.Signals) -> None:
    files = Path(home.env["HUBGATE_HOME"], "files")
    with lookalike("tei", seconds=0.2, dimensions=8) as server:
        with home.serve() as gateway, client_of(gateway, home) as client:
            form = {"name": "slow", "url": server.url, "rate_limit": {"max_concurrent_requests": 1}}
            assert gateway.request("POST", "/api/endpoints", form, key=home.admin_key).status == 201
            batch = create_batch(client, batch_input(texts(ROWS, "slow")))

            eventually(lambda: answered(files) > 0)
            gateway.signal(stop)
            gateway.wait()
        assert 0 < answered(files) < ROWS
        server.hurry()
        with home.serve(HUBGATE_CACHE_BYTES="0") as gateway, client_of(gateway, home) as client:
            done = wait_for_end(client, batch)
            assert done.status == "completed"
            lines = lines_of(client, done.output_file_id)
            assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(ROWS)]
            repeated = len(received(server)) - ROWS
            assert repeated <= IN_FLIGHT
            for line, body in list(zip(lines, texts(ROWS, "slow"), strict=True))[:: ROWS // 5]:
                reply = gateway.request("POST", "/v1/embeddings", body, key=home.admin_key).json()
                assert line["response"]["body"]["data"] == reply["data"]
    assert list(files.glob("*.part")) == []


def test_a_batch_that_was_at_work_when_two_gateways_were_killed_is_paused(home: Home) -> None:
    files = Path(home.env["HUBGATE_HOME"], "files")
    with lookalike("tei", seconds=0.2, dimensions=8) as server:
        for answered_before in (0, 1):
            with home.serve() as gateway, client_of(gateway, home) as client:
                if not answered_before:
                    form = {"name": "slow", "url": server.url, "rate_limit": {"max_concurrent_requests": 1}}
                    assert gateway.request("POST", "/api/endpoints", form, key=home.admin_key).status == 201
                    batch = create_batch(client, batch_input(texts(ROWS, "slow")))
                before = answered(files)
                eventually(lambda before=before: answered(files) > before)  # type: ignore[misc]
                gateway.signal(signal.SIGKILL)
                gateway.wait()
        kept = answered(files)
        assert kept < ROWS
        server.hurry()
        with home.serve() as gateway, client_of(gateway, home) as client:
            paused = wait_for_end(client, batch)
            assert paused.status == "cancelled"
            assert paused.errors is not None
            assert paused.errors.data is not None
            (fault,) = paused.errors.data
            assert fault.code == "paused"
            assert f"POST /api/jobs/{batch.id}/resume" in str(fault.message)
            assert len(lines_of(client, paused.output_file_id)) == kept
            left = lines_of(client, paused.error_file_id)
            assert {line["error"]["code"] for line in left} == {"batch_paused"}

            reply = gateway.request("POST", f"/api/jobs/{batch.id}/resume", key=home.admin_key)
            assert reply.status == 200
            done = wait_for_end(client, batch)
            assert (done.status, done.errors) == ("completed", None)
            assert len(lines_of(client, done.output_file_id)) == ROWS
