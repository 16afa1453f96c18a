"""OpenAI's client: files and batches against a real gateway."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import openai
import pytest
from batch_files import ENDED, batch_input, create_batch, lines_of, texts, wait_for_end
from lookalikes import lookalike
from models import gateway_with
from running_gateway import RunningGateway, eventually

from hubgate.features.bulk.batches.batches import MAX_RUNNING, MAX_UNFINISHED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hubgate.settings import Settings


def client_of(gateway: RunningGateway, key: str | None = None) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key or gateway.admin_key, max_retries=0)


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    """The client, with an endpoint named words."""
    gateway.add("words", dimensions=8)
    with client_of(gateway) as made:
        yield made


def test_a_batch_of_embeddings_has_the_rows_of_the_route(client: openai.OpenAI) -> None:
    batch = create_batch(client, batch_input(texts(50)), metadata={"job": "nightly"})
    assert (batch.status, batch.metadata) == ("validating", {"job": "nightly"})
    assert batch.expires_at == batch.created_at + 24 * 3600
    done = wait_for_end(client, batch)
    assert (done.status, done.errors, done.error_file_id) == ("completed", None, None)
    assert done.model == "words"
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (
        50,
        50,
        0,
    )
    lines = lines_of(client, done.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(50)]
    for line, body in zip(lines, texts(50), strict=True):
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert (line["error"], line["response"]["status_code"]) == (None, 200)
        direct = client.embeddings.with_raw_response.create(**body, encoding_format="float")
        assert line["response"]["body"] == json.loads(direct.content)


def test_files_are_uploaded_listed_read_and_deleted(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(batch_input(texts(3)))
    with path.open("rb") as content:
        file = client.files.create(
            file=content, purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200}
        )
    assert (file.filename, file.bytes, file.purpose, file.status) == (
        "requests.jsonl",
        path.stat().st_size,
        "batch",
        "processed",
    )
    assert file.expires_at == file.created_at + 7200
    assert client.files.retrieve(file.id) == file
    assert client.files.wait_for_processing(file.id) == file
    assert client.files.content(file.id).content == path.read_bytes()
    others = [client.files.create(file=(f"{n}.jsonl", b""), purpose="batch").id for n in range(3)]
    assert {one.id for one in client.files.list(limit=2)} == {file.id, *others}  # reads the second page, too
    assert [one.id for one in client.files.list(purpose="batch_output")] == []
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError, match="No file has the id"):
        client.files.retrieve(file.id)


def test_batches_are_listed_a_page_at_a_time(client: openai.OpenAI) -> None:
    made = [create_batch(client, batch_input(texts(1))).id for _ in range(3)]
    assert sorted(one.id for one in client.batches.list(limit=2)) == sorted(made)
    assert len(client.batches.list(limit=2).data) == 2


def test_requests_that_fail_are_in_the_error_file(client: openai.OpenAI) -> None:
    bodies = [*texts(2), {"model": "words", "input": ""}, {"model": "nowhere", "input": "text"}]
    done = wait_for_end(client, create_batch(client, batch_input(bodies)))
    assert done.status == "completed"
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (2, 2)
    assert [line["custom_id"] for line in lines_of(client, done.output_file_id)] == ["r0", "r1"]
    errors = lines_of(client, done.error_file_id)
    assert [line["response"]["status_code"] for line in errors] == [400, 404]
    assert errors[1]["response"]["body"]["error"]["message"].startswith("No endpoint is named [nowhere].")


def test_an_invalid_input_fails_with_the_numbers_of_its_lines(client: openai.OpenAI) -> None:
    good = json.loads(batch_input(texts(1)))
    lines = [
        good,
        good,
        {**good, "custom_id": "a", "url": "/v1/completions"},
        {**good, "custom_id": "b", "method": "GET"},
        {**good, "custom_id": "c", "body": [1]},
        {**good, "custom_id": "d", "body": {"model": "words", "stream": True}},
        {"custom_id": "e"},
    ]
    content = "\n".join([*map(json.dumps, lines), "{", ""]).encode()
    failed = wait_for_end(client, create_batch(client, content))
    assert failed.status == "failed"
    assert failed.failed_at is not None
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(fault.line, fault.code, fault.param) for fault in failed.errors.data] == [
        (2, "duplicate_custom_id", "custom_id"),
        (3, "mismatched_url", "url"),
        (4, "invalid_method", "method"),
        (5, "invalid_body", "body"),
        (6, "stream_not_supported", "body.stream"),
        (7, "invalid_request", None),
        (8, "invalid_json_line", None),
    ]
    empty = wait_for_end(client, create_batch(client, b"\n\n"))
    assert empty.errors is not None
    assert empty.errors.data is not None
    assert [fault.code for fault in empty.errors.data] == ["empty_file"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "/v1/moderations"}, r"\[endpoint\] is not supported"),
        ({"completion_window": "1w"}, r"\[completion_window\] is not valid"),
        ({"metadata": {"a" * 65: ""}}, r"\[metadata\] is too large"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, "must be from 3600 to"),
    ],
)
def test_an_invalid_batch_is_refused(client: openai.OpenAI, options: dict[str, object], message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        create_batch(client, batch_input(texts(1)), **options)  # type: ignore[arg-type]


def test_a_cancelled_batch_keeps_what_was_answered(gateway: RunningGateway) -> None:
    with lookalike("tei", dimensions=8) as server, client_of(gateway) as client:
        gateway.add("slow", url=server.url, rate_limit={"requests_per_minute": 6})
        batch = create_batch(client, batch_input(texts(500, "slow")))

        def is_answered() -> bool:
            counts = client.batches.retrieve(batch.id).request_counts
            return counts is not None and counts.completed > 0

        eventually(is_answered)
        assert client.batches.cancel(batch.id).status in {"cancelling", "cancelled"}
        done = wait_for_end(client, batch)
        assert done.status == "cancelled"
        assert done.cancelling_at is not None
        assert done.cancelled_at is not None
        good, bad = lines_of(client, done.output_file_id), lines_of(client, done.error_file_id)
        assert len(good) + len(bad) == 500
        assert good
        assert {line["error"]["code"] for line in bad} == {"batch_cancelled"}
        assert {line["response"] for line in bad} == {None}
        with pytest.raises(openai.APIStatusError, match="The batch has ended"):
            client.batches.cancel(batch.id)


def test_a_batch_belongs_to_its_key(client: openai.OpenAI, gateway: RunningGateway) -> None:
    with (
        client_of(gateway, gateway.create_key("one")) as one,
        client_of(gateway, gateway.create_key("two")) as two,
    ):
        done = wait_for_end(one, create_batch(one, batch_input(texts(2))))
        assert done.output_file_id is not None
        for call in (
            lambda: two.batches.retrieve(done.id),
            lambda: two.batches.cancel(done.id),
            lambda: two.files.retrieve(done.input_file_id),
            lambda: two.files.content(str(done.output_file_id)),
            lambda: two.files.delete(done.input_file_id),
            lambda: two.batches.create(
                input_file_id=done.input_file_id, endpoint="/v1/embeddings", completion_window="24h"
            ),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
        assert (two.batches.list().data, two.files.list().data) == ([], [])
        assert client.batches.retrieve(done.id).id == done.id  # an admin's key
        assert len(lines_of(client, done.output_file_id)) == 2


def test_the_rights_of_the_key_hold_for_each_request(gateway: RunningGateway) -> None:
    gateway.add("words", dimensions=8)
    gateway.add("other", dimensions=8)
    key = gateway.create_key("app", endpoints=["words"])
    with client_of(gateway, key) as client:
        bodies = [*texts(1), *texts(1, "other")]
        done = wait_for_end(client, create_batch(client, batch_input(bodies)))
        assert [line["custom_id"] for line in lines_of(client, done.output_file_id)] == ["r0"]
        error = lines_of(client, done.error_file_id)[0]["response"]["body"]["error"]
        assert error["code"] == "endpoint_not_found"
    usage = gateway.request("GET", "/api/usage?by=endpoint,key").json()["rows"]
    assert sum(row["requests"] for row in usage if row["endpoint"] == "words" and row["key"] != "admin") == 1


def test_a_batch_waits_for_the_limit_of_its_key_and_ends_when_it_is_revoked(gateway: RunningGateway) -> None:
    gateway.add("words", dimensions=8)
    with (
        client_of(
            gateway, gateway.create_key("app", requests_per_minute=7)
        ) as client,  # the upload, the batch and five of its requests
        client_of(gateway) as admin,
    ):
        batch = create_batch(client, batch_input(texts(20)))

        def is_limited() -> bool:
            counts = client.batches.retrieve(batch.id).request_counts
            return counts is not None and counts.completed == 5

        eventually(is_limited)
        assert gateway.request("DELETE", "/api/keys/app").status == 204
        done = wait_for_end(admin, batch, 90)
        assert done.status == "cancelled"
        assert done.errors is not None
        assert done.errors.data is not None
        assert [fault.code for fault in done.errors.data] == ["key_revoked"]
        assert len(lines_of(admin, done.output_file_id)) == 5
        assert len(lines_of(admin, done.error_file_id)) == 15


def test_batches_chat_complete_and_rerank(settings: Settings) -> None:
    with gateway_with(settings, "vllm") as (gateway, _), client_of(gateway) as client:
        gateway.add("ranker", task="rerank")
        chat = {"model": "vllm", "messages": [{"role": "user", "content": "Hello"}]}
        done = wait_for_end(
            client, create_batch(client, batch_input([chat], "/v1/chat/completions"), "/v1/chat/completions")
        )
        reply = lines_of(client, done.output_file_id)[0]["response"]["body"]
        assert reply["choices"][0]["message"]["role"] == "assistant"
        body = {"model": "vllm", "input": "Hello"}
        done = wait_for_end(
            client, create_batch(client, batch_input([body], "/v1/responses"), "/v1/responses")
        )
        assert lines_of(client, done.output_file_id)[0]["response"]["body"]["object"] == "response"
        rank: dict[str, Any] = {"model": "ranker", "query": "a b", "documents": ["c", "a b"]}
        done = wait_for_end(client, create_batch(client, batch_input([rank], "/v1/rerank"), "/v1/rerank"))
        ranks = lines_of(client, done.output_file_id)[0]["response"]["body"]["results"]
        assert [rank["index"] for rank in ranks] == [1, 0]


def test_files_in_an_object_store_are_at_every_gateway(settings: Settings, tmp_path: Path) -> None:
    """The gateways here share a database by turns: the second has another folder for copies, which is empty."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    settings = replace(settings, files_url=f"file://{bucket}")
    with RunningGateway(settings) as gateway:
        gateway.add("words", dimensions=8)
        with client_of(gateway) as client:
            batch = wait_for_end(client, create_batch(client, batch_input(texts(20))))
        key = gateway.admin_key
    assert batch.status == "completed"
    settings = replace(settings, files_folder=tmp_path / "copies")
    with RunningGateway(settings) as gateway, client_of(gateway, key) as client:
        ids = [line["custom_id"] for line in lines_of(client, batch.output_file_id)]
        assert ids == [f"r{n}" for n in range(20)]
        again = client.batches.create(
            input_file_id=batch.input_file_id, endpoint="/v1/embeddings", completion_window="24h"
        )
        done = wait_for_end(client, again)
        assert done.status == "completed"
        for file_id in (batch.input_file_id, batch.output_file_id, done.output_file_id):
            assert file_id is not None
            assert client.files.delete(file_id).deleted
    left = [path.name for path in bucket.rglob("*") if path.is_file()]
    assert left == [".folder"], "parts and files are gone"


def test_batches_of_one_key_that_only_wait_do_not_keep_those_of_others_from_starting(
    gateway: RunningGateway,
) -> None:
    gateway.add("words", dimensions=8)
    gateway.add("off", dimensions=8)
    assert gateway.request("PATCH", "/api/endpoints/off", {"enabled": False}).status == 200
    with (
        client_of(gateway, gateway.create_key("greedy")) as greedy,
        client_of(gateway, gateway.create_key("app")) as client,
    ):
        file = greedy.files.create(file=("in.jsonl", batch_input(texts(1, "off"))), purpose="batch")

        def create() -> str:
            made = greedy.batches.create(
                input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"
            )
            return made.id

        waiting = [create() for _ in range(MAX_UNFINISHED)]
        with pytest.raises(
            openai.RateLimitError, match=r"100 batches that have not ended.*cancel one"
        ) as refused:
            create()
        assert refused.value.response.headers["x-should-retry"] == "false"
        eventually(
            lambda: (
                sum(one.status == "in_progress" for one in greedy.batches.list(limit=100).data) >= MAX_RUNNING
            )
        )
        assert wait_for_end(client, create_batch(client, batch_input(texts(3)))).status == "completed"
        assert not {greedy.batches.retrieve(one).status for one in waiting} & ENDED


def test_a_batch_is_not_taken_up_twice_when_the_clock_is_set(gateway: RunningGateway) -> None:
    rows = 120
    with lookalike("tei", seconds=0.05, dimensions=8) as server, client_of(gateway) as client:
        gateway.add("slow", url=server.url, cache=False, rate_limit={"max_concurrent_requests": 1})
        gateway.add("words", dimensions=8)
        first = create_batch(client, batch_input(texts(rows, "slow")))
        eventually(lambda: bool(server.batches) and any("number" in batch[0] for batch in server.batches))
        with closing(sqlite3.connect(gateway.settings.database, timeout=60)) as database, database:
            database.execute("UPDATE batches SET owned_until = 0")  # as if two minutes were over
        second = create_batch(client, batch_input(texts(1)))
        assert wait_for_end(client, second).status == "completed"
        assert wait_for_end(client, first).status == "completed"
        sent = [text for batch in server.batches for text in batch if "number" in text]
        assert len(sent) == len(set(sent)) == rows
