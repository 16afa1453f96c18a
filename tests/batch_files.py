"""Inputs of batches, and batches run by OpenAI's own client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from running_gateway import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import openai
    from openai.types import Batch

EMBEDDINGS = "/v1/embeddings"
ENDED = {"completed", "failed", "cancelled", "expired"}


def batch_input(bodies: Iterable[Mapping[str, Any]], path: str = EMBEDDINGS) -> bytes:
    """A request per body, with the custom ids r0, r1 and so on."""
    lines = (
        json.dumps({"custom_id": f"r{n}", "method": "POST", "url": path, "body": body})
        for n, body in enumerate(bodies)
    )
    return ("\n".join(lines) + "\n").encode()


def texts(count: int, model: str = "words") -> list[dict[str, Any]]:
    return [{"model": model, "input": f"text number {n}"} for n in range(count)]


def create_batch(client: openai.OpenAI, content: bytes, path: str = EMBEDDINGS, **options: Any) -> Batch:
    """Upload an input and create its batch."""
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint=path,  # type: ignore[arg-type] # reranking is hubgate's own
        **{"completion_window": "24h", **options},
    )


def answered(files: Path) -> int:
    """How many requests are answered and on disk, of a batch that has not ended.

    The API reports progress now and then: on a busy machine, all may be answered by then.
    """
    return sum(part.read_bytes().count(b"\n") for part in files.glob("*.output.part"))


def wait_for_end(client: openai.OpenAI, batch: Batch, seconds: float = 60.0) -> Batch:
    found = batch

    def has_ended() -> bool:
        nonlocal found
        found = client.batches.retrieve(batch.id)
        return found.status in ENDED

    eventually(has_ended, seconds)
    return found


def lines_of(client: openai.OpenAI, file_id: str | None) -> Sequence[dict[str, Any]]:
    """The lines of an output or error file."""
    if file_id is None:
        return []
    return [json.loads(line) for line in client.files.content(file_id).content.splitlines()]
