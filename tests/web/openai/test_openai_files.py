"""Uploads are forms with one file, written to disk as they arrive, and bounded."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from running_gateway import Reply, RunningGateway, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubgate.settings import Settings

BOUNDARY = "edge"
MAX_BYTES, KEY_BYTES, TOTAL_BYTES = 100_000, 120_000, 150_000


@pytest.fixture
def gateway(settings: Settings) -> Iterator[RunningGateway]:
    """With low limits. The limit for other bodies is lower still."""
    limited = replace(
        settings,
        files_max_bytes=MAX_BYTES,
        files_total_bytes=TOTAL_BYTES,
        files_key_bytes=KEY_BYTES,
        max_body_bytes=2048,
        max_total_body_bytes=2048,
    )
    with RunningGateway(limited) as running:
        yield running


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    more = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def upload(gateway: RunningGateway, body: bytes, key: str | None = None, **headers: str) -> Reply:
    sent = {"content-type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
    return gateway.request("POST", "/v1/files", body, headers=sent, key=key)


def error_of(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json()["error"]["message"]


def files_in(gateway: RunningGateway) -> list[str]:
    return sorted(path.name for path in gateway.settings.files.iterdir() if path.name != ".folder")


PURPOSE = part("purpose", b"batch")


def test_a_file_larger_than_other_bodies_is_stored(gateway: RunningGateway) -> None:
    content = bytes(range(256)) * 300  # with line breaks and parts of boundaries
    reply = upload(gateway, form(part("file", content, "a.jsonl"), PURPOSE))
    assert reply.status == 200
    file = reply.json()
    assert (file["bytes"], file["filename"]) == (len(content), "a.jsonl")
    got = gateway.request("GET", f"/files/{file['id']}/content")  # with and without /v1
    assert got.body == content
    assert got.headers["content-type"] == "application/octet-stream"
    assert files_in(gateway) == [file["id"]]


def test_a_file_over_the_limit_is_refused_and_leaves_nothing(gateway: RunningGateway) -> None:
    too_large = part("file", b"x" * (MAX_BYTES + 1), "a")
    assert error_of(upload(gateway, form(too_large, PURPOSE))) == (
        413,
        f"The file is larger than {MAX_BYTES} bytes. Split it, or ask the operator to raise HUBGATE_FILES_MAX_BYTES.",
    )
    status, message = error_of(
        upload(gateway, form(part("file", b"x" * 500_000, "a")))
    )  # by its announced length
    assert (status, "HUBGATE_FILES_MAX_BYTES" in message) == (413, True)
    eventually(lambda: files_in(gateway) == [])  # they are removed after the reply


def test_a_key_has_a_share_and_a_full_folder_names_its_holders(gateway: RunningGateway) -> None:
    body = form(part("file", b"x" * 90_000, "a"), PURPOSE)
    first = upload(gateway, body)
    assert first.status == 200
    over = upload(gateway, body)
    status, message = error_of(over)
    assert (status, message.startswith("The files of the key would take more than its share")) == (413, True)
    assert "DELETE /v1/files/{file_id}" in message
    assert (over.json()["error"]["code"], "retry-after" in over.headers) == ("files_full", False)
    other = gateway.create_key("other")
    assert upload(gateway, form(part("file", b"x" * 9000, "a"), PURPOSE), other).status == 200
    full = upload(gateway, body, other)
    assert (full.status, full.json()["error"]["message"].startswith("The folder for files is full.")) == (
        507,
        True,
    )
    assert (full.headers["x-should-retry"], "retry-after" in full.headers) == ("false", False)
    report = gateway.request("GET", "/api/files").json()
    assert [(one["key_name"], one["files"], one["bytes"]) for one in report["keys"]] == [
        ("admin", 1, 90_000),
        ("other", 1, 9000),
    ]
    assert report["bytes"] >= 99_000
    assert gateway.request("GET", "/api/files", key=other).status == 403
    assert gateway.request("DELETE", f"/v1/files/{first.json()['id']}").status == 200
    assert upload(gateway, body).status == 200


def test_uploads_at_once_stay_within_the_share_together(gateway: RunningGateway) -> None:
    body = form(part("file", b"x" * 50_000, "a"), PURPOSE)
    with ThreadPoolExecutor(12) as threads:
        statuses = list(threads.map(lambda _: upload(gateway, body).status, range(12)))
    assert statuses.count(200) == 2
    assert set(statuses) == {200, 413}


def test_uploads_and_new_batches_count_towards_the_limit_of_the_key(gateway: RunningGateway) -> None:
    key = gateway.create_key("few", requests_per_minute=2)
    body = form(part("file", b"{}", "a"), PURPOSE)
    file = upload(gateway, body, key)
    assert file.status == 200
    batch = {
        "input_file_id": file.json()["id"],
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
    }
    assert gateway.request("POST", "/v1/batches", batch, key=key).status == 200
    over = upload(gateway, body, key), gateway.request("POST", "/v1/batches", batch, key=key)
    assert [reply.status for reply in over] == [429, 429]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (form(PURPOSE), "[file] is required."),
        (form(part("file", b"", "a")), "[purpose] must be 'batch'."),
        (form(part("file", b"", "a"), part("purpose", b"assistants")), "[purpose] must be 'batch'."),
        (form(part("file", b"", "a"), part("file", b"", "b"), PURPOSE), "The form has more than one [file]."),
        (form(part("data", b"", "a"), PURPOSE), "The file must be the field [file]."),
        (form(part("file", b"", "a"), PURPOSE)[:-20], "The form ends too early."),
        (form(part("purpose", b"b" * 5000)), "[purpose] is too long."),
        (form(*(part(f"f{n}", b"") for n in range(18))), "The form has too many fields."),
        (form(*(part("same", b"") for n in range(18))), "The form has too many fields."),
        (b"--edge\r\n" + b"A" * 4150 + b": x\r\n\r\n", "The form cannot be read."),
        (b"--edge\r\nA: " + b"x" * 4150 + b"\r\n\r\n", "The form cannot be read."),
        (b"--edge\r\n" + b"A: x\r\n" * 9 + b"\r\n", "The form cannot be read."),
        (b"--edge\r\n\x00: x\r\n\r\n", "The form cannot be read."),
        (form(b"--edge\r\nX-Other: a\r\n\r\n\r\n"), "A part of the form has no name."),
        (
            form(part("file", b"", "a"), PURPOSE, part("expires_after[seconds]", b"60")),
            "[expires_after.seconds] must be from 3600 to 2592000.",
        ),
        (
            form(part("file", b"", "a"), PURPOSE, part("expires_after[anchor]", b"last_used")),
            "[expires_after] is not valid.",
        ),
    ],
)
def test_an_invalid_form_is_a_400_with_the_reason(gateway: RunningGateway, body: bytes, message: str) -> None:
    status, text = error_of(upload(gateway, body))
    assert (status, text.startswith(message)) == (400, True), text
    eventually(lambda: files_in(gateway) == [])  # they are removed after the reply


def test_a_body_that_is_not_a_form_is_a_400(gateway: RunningGateway) -> None:
    reply = gateway.request("POST", "/v1/files", {"purpose": "batch"})
    assert error_of(reply)[1].startswith("The body is not a form.")


@pytest.mark.parametrize("length", [257, 2000])
def test_a_boundary_that_is_too_long_is_a_400(gateway: RunningGateway, length: int) -> None:
    headers = {"content-type": f"multipart/form-data; boundary={'b' * length}"}
    reply = gateway.request("POST", "/v1/files", b"", headers=headers)
    assert (reply.status, error_of(reply)[1].startswith("The boundary of the form is too long.")) == (
        400,
        True,
    )


def test_an_upload_needs_a_key_and_a_disconnect_leaves_nothing(gateway: RunningGateway) -> None:
    assert upload(gateway, form(PURPOSE), authorization="Bearer wrong").status == 401
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc)
    connection.putrequest("POST", "/v1/files")
    connection.putheader("Authorization", f"Bearer {gateway.admin_key}")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", "90000")
    connection.endheaders(part("file", b"x" * 1000, "a"))
    connection.close()
    assert upload(gateway, form(part("file", b"", "a"), PURPOSE)).status == 200
    eventually(lambda: len(files_in(gateway)) == 1)  # when the gateway has noticed the disconnect


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "[limit] must be from 1 to 10000."),
        ("limit=a", "[limit]"),
        ("order=up", "[order] must be"),
    ],
)
def test_an_invalid_page_is_a_400(gateway: RunningGateway, query: str, message: str) -> None:
    status, text = error_of(gateway.request("GET", f"/v1/files?{query}"))
    assert (status, text.startswith(message)) == (400, True)


def test_files_are_listed_oldest_first_on_request(gateway: RunningGateway) -> None:
    body: Any = form(part("file", b"", "a"), PURPOSE)
    made = [upload(gateway, body).json()["id"] for _ in range(3)]
    listed = gateway.request("GET", "/v1/files?order=asc&limit=2").json()
    assert [one["id"] for one in listed["data"]] == made[:2]
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == (made[0], made[1], True)
