"""OpenAI's client verifies the message at the end of a batch."""

from __future__ import annotations

import base64
import queue
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import openai
import pytest
from batch_files import batch_input, create_batch, texts, wait_for_end
from openai.types.webhooks import BatchCompletedWebhookEvent, BatchFailedWebhookEvent
from running_gateway import RunningGateway

from hubgate.domain.errors import UpstreamUnreachable
from hubgate.features.bulk.batches.post import WebhookPost

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hubgate.settings import Settings

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
Received = queue.Queue[tuple[bytes, dict[str, str]]]


@contextmanager
def receiver() -> Iterator[tuple[str, Received]]:
    """A server that accepts every message."""
    received: Received = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.put((body, dict(self.headers.items())))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", received
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("secret", [SECRET, "a secret without the prefix"])
def test_the_client_verifies_the_message_at_the_end(
    settings: Settings, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    with receiver() as (url, received):
        with RunningGateway(replace(settings, webhook_url=url, webhook_secret=secret)) as gateway:
            gateway.add("words", dimensions=8)
            with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.admin_key) as client:
                done = wait_for_end(client, create_batch(client, batch_input(texts(2))))
                body, headers = received.get(timeout=240)
                event = client.webhooks.unwrap(body, headers, secret=secret)
                assert isinstance(event, BatchCompletedWebhookEvent)
                assert event.data.id == done.id
                failed = wait_for_end(client, create_batch(client, b"{"))
                body, headers = received.get(timeout=240)
                event = client.webhooks.unwrap(body, headers, secret=secret)
                assert isinstance(event, BatchFailedWebhookEvent)
                assert event.data.id == failed.id
                _refuse_changes(client, body, headers, secret)
        assert received.empty()
    assert secret not in caplog.text
    assert "/hook" not in caplog.text


async def test_the_credentials_of_the_url_are_sent_but_not_shown() -> None:
    with receiver() as (url, received):
        with_credentials = url.replace("//", "//us%40er:p%3Ass@")
        assert await WebhookPost(with_credentials)({"webhook-id": "1"}, b"{}") == 204
        _, headers = received.get(timeout=240)
        assert headers["authorization"] == "Basic " + base64.b64encode(b"us@er:p:ss").decode()
        assert await WebhookPost(url)({}, b"{}") == 204
        assert "authorization" not in received.get(timeout=240)[1]
    with pytest.raises(UpstreamUnreachable) as failed:
        await WebhookPost("http://us:s3cret@127.0.0.1:9/hook")({}, b"{}")
    assert "s3cret" not in f"{failed.value!r} {failed.value}"


def _refuse_changes(client: openai.OpenAI, body: bytes, headers: Mapping[str, str], secret: str) -> None:
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body + b" ", headers, secret=secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body, headers, secret="another secret")
