"""A message that fails is sent again later, with the same id, and given up at last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hubgate.domain.errors import UpstreamUnreachable
from hubgate.features.bulk.batches.model import Batch, BatchStatus
from hubgate.features.bulk.batches.webhook import RETRY_SECONDS, Webhook

if TYPE_CHECKING:
    from collections.abc import Mapping

DONE = Batch(
    id="batch_1",
    key="k",
    folder="f",
    path="/v1/embeddings",
    input_file="file-1",
    window="24h",
    created_at=1.0,
    expires_at=2.0,
    status=BatchStatus.COMPLETED,
    ended_at=5.0,
    notify_at=5.0,
)


async def test_a_failed_message_is_retried_with_its_id() -> None:
    ids: list[str] = []

    async def post(headers: Mapping[str, str], body: bytes) -> int:
        ids.append(headers["webhook-id"])
        if len(ids) % 2:
            raise UpstreamUnreachable("no")
        return 500

    webhook = Webhook(post, "a secret", lambda: 100.0)
    batch = DONE
    for wait in RETRY_SECONDS:
        batch = await webhook.send(batch)
        assert batch.notify_at == 100.0 + wait
    assert (await webhook.send(batch)).notify_at is None
    assert len(set(ids)) == 1


async def test_a_message_that_arrived_is_not_sent_again() -> None:
    async def post(headers: Mapping[str, str], body: bytes) -> int:
        assert msgspec.json.decode(body)["created_at"] == 5
        return 204

    assert (await Webhook(post, "a secret", lambda: 100.0).send(DONE)).notify_at is None
