"""The message at the end of a batch, signed as Standard Webhooks describes, which OpenAI's clients verify."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import msgspec

from hubgate.domain.errors import HubgateError
from hubgate.features.bulk.batches.model import Batch

RETRY_SECONDS = (5.0, 30.0, 120.0, 600.0, 3600.0, 4 * 3600.0)
"""Waits after failed attempts. After the last one, the message is given up."""
_log = logging.getLogger(__name__)


Post: TypeAlias = Callable[[Mapping[str, str], bytes], Awaitable[int]]
"""Sends a POST to the URL of the settings, with these headers and this body; returns the status. Raises: HubgateError."""


class Webhook:
    """Sends the message at the end of a batch.

    Args:
        post: sends a POST.
        secret: `whsec_` and base64, or any text.
        clock: seconds since the epoch.
    """

    def __init__(self, post: Post, secret: str, clock: Callable[[], float]) -> None:
        self._post = post
        encoded = secret.removeprefix("whsec_")
        self._secret = secret.encode() if encoded == secret else base64.b64decode(encoded)
        self._clock = clock

    async def send(self, batch: Batch) -> Batch:
        """Send the message of a finished batch; returns the batch with the time of the next attempt, if there is one."""
        message_id = f"evt_{batch.id.removeprefix('batch_')}{int(batch.ended_at or 0)}"
        body = msgspec.json.encode(
            {
                "id": message_id,
                "object": "event",
                "created_at": int(batch.ended_at or 0),
                "type": f"batch.{batch.status}",
                "data": {"id": batch.id},
            }
        )
        now = self._clock()
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": self._signature(message_id, int(now), body),
        }
        try:
            status = await self._post(headers, body)
            fault = "" if 200 <= status < 300 else f"status {status}"
        except HubgateError as error:
            fault = error.cause
        if not fault:
            return msgspec.structs.replace(batch, notify_at=None, notified=batch.notified + 1)
        waits = RETRY_SECONDS[batch.notified : batch.notified + 1]
        again = "will be tried again" if waits else "is given up"
        _log.warning("batch %s: its webhook failed (%s) and %s", batch.id, fault, again)
        at = now + waits[0] if waits else None
        return msgspec.structs.replace(batch, notify_at=at, notified=batch.notified + 1)

    def _signature(self, message_id: str, timestamp: int, body: bytes) -> str:
        signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
        return "v1," + base64.b64encode(hmac.new(self._secret, signed, hashlib.sha256).digest()).decode()
