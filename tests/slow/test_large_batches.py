"""A batch of many requests that is killed in the middle."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest
from batch_files import EMBEDDINGS, answered, batch_input, create_batch, lines_of, texts, wait_for_end
from running_gateway import eventually

if TYPE_CHECKING:
    from gateway_process import GatewayProcess, Home

pytestmark = pytest.mark.timeout(1200)
ROWS = 5_000


def client_of(gateway: GatewayProcess, home: Home) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=home.admin_key, max_retries=0)


def test_five_thousand_embeddings_survive_kill_9(home: Home) -> None:
    """Every row is compared with `/v1/embeddings`. The model is hubgate's fake one."""
    files = Path(home.env["HUBGATE_HOME"], "files")
    with home.serve() as gateway, client_of(gateway, home) as client:
        batch = create_batch(client, batch_input(texts(ROWS)))
        eventually(lambda: answered(files) > 0)
        gateway.signal(signal.SIGKILL)
        gateway.wait()
    kept = answered(files)
    assert 0 < kept < ROWS
    with home.serve() as gateway, client_of(gateway, home) as client:
        done = wait_for_end(client, batch, 300)
        assert done.status == "completed"
        lines = lines_of(client, done.output_file_id)
        assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(ROWS)]
        logged = gateway.output.count("client=batch ")
        assert logged == ROWS - kept
        rows = [line["response"]["body"]["data"][0]["embedding"] for line in lines]
        direct = []
        for start in range(0, ROWS, 500):
            inputs = [body["input"] for body in texts(ROWS)[start : start + 500]]
            body = {"model": "words", "input": inputs}
            reply = gateway.request("POST", EMBEDDINGS, body, key=home.admin_key).json()
            direct += [item["embedding"] for item in reply["data"]]
        assert rows == direct
