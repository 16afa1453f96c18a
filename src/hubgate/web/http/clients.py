"""Which client asks, where several kinds of clients share a path."""

from __future__ import annotations

from collections.abc import Mapping


def is_hugging_faces(headers: Mapping[bytes, bytes]) -> bool:
    """Whether one of Hugging Face's own clients asks: huggingface_hub, or @huggingface/inference."""
    agent = headers.get(b"user-agent", b"")
    return b"hf_hub/" in agent or b"@huggingface/" in agent


def is_elasticsearch(headers: Mapping[bytes, bytes]) -> bool:
    """Whether an Elasticsearch asks, which calls its services with Apache's client."""
    return headers.get(b"user-agent", b"").startswith(b"Apache-HttpAsyncClient/")
