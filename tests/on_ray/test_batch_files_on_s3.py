"""The files of batches on S3, for two gateways on one PostgreSQL that share nothing else."""

from __future__ import annotations

import secrets
import signal
from typing import TYPE_CHECKING

import openai
import pyarrow.fs as pafs
import pytest
from batch_files import batch_input, create_batch, lines_of, texts, wait_for_end
from gateway_process import Home
from lookalikes import lookalike
from ray_cluster import Bucket, s3_server
from running_gateway import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(900)
ROWS = 4000


def test_another_gateway_ends_the_batch_of_a_killed_one(migrated_url: str, tmp_path: Path) -> None:
    (tmp_path / "s3").mkdir()
    admin, secret = secrets.token_urlsafe(24), secrets.token_urlsafe(32)
    with s3_server(tmp_path / "s3") as bucket, lookalike("tei", seconds=0.5, dimensions=8) as server:
        shared = {"HUBGATE_DATABASE_URL": migrated_url, "HUBGATE_SECRET_KEY": secret}
        shared |= {"HUBGATE_FILES": bucket.uri("batches"), "HUBGATE_CACHE_BYTES": "0"}
        homes = [Home(tmp_path / name, admin) for name in ("first", "other")]
        for home in homes:
            home.env |= bucket.env | shared
        with homes[0].serve() as first, homes[1].serve() as second:
            form = {"name": "slow", "url": server.url, "rate_limit": {"max_concurrent_requests": 1}}
            assert first.request("POST", "/api/endpoints", form, key=admin).status == 201
            content = batch_input(texts(ROWS, "slow"))
            with openai.OpenAI(base_url=f"{first.url}/v1", api_key=admin) as client:
                batch = create_batch(client, content)
            eventually(lambda: answers_in(bucket, batch.id) > 0, seconds=300)
            first.signal(signal.SIGKILL)
            first.wait()
            stored = answers_in(bucket, batch.id)
            server.hurry()
            with openai.OpenAI(base_url=f"{second.url}/v1", api_key=admin) as client:
                assert client.files.content(batch.input_file_id).content == content
                done = wait_for_end(client, batch, seconds=300)
                assert done.status == "completed"
                ids = [line["custom_id"] for line in lines_of(client, done.output_file_id)]
                assert ids == [f"r{n}" for n in range(ROWS)]
                for file_id in (batch.input_file_id, done.output_file_id):
                    assert file_id is not None
                    client.files.delete(file_id)
        asked = sum(text.startswith("text number") for group in server.batches for text in group)
        print(f"{stored:,} of {ROWS:,} answers were on S3 at the kill; {asked - ROWS:,} were asked again")
        assert asked <= 2 * ROWS - stored
        assert objects(bucket) == ["texts/batches/.folder"]


def objects(bucket: Bucket, folder: str = "") -> list[str]:
    place = pafs.FileSelector(f"{bucket.name}/batches/{folder}", recursive=True, allow_not_found=True)
    return [info.path for info in bucket.files.get_file_info(place) if info.type is pafs.FileType.File]


def answers_in(bucket: Bucket, batch_id: str) -> int:
    """How many answers of a batch are stored."""
    count = 0
    for path in objects(bucket, batch_id):
        with bucket.files.open_input_stream(path) as file:
            count += file.read().count(b"\n")
    return count
