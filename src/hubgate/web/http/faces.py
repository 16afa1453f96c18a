"""Which face a path belongs to, and who asks where several kinds of clients share a path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Who calls these below /hf/{endpoint} is a client of OpenAI's.
_OPENAI_TAILS = frozenset({"v1/embeddings", "embeddings", "v1/rerank", "v2/rerank"})
# Here every kind of client calls. Hugging Face's own read the errors of text-generation-inference, all others OpenAI's.
_SHARED_TAILS = frozenset({"v1/chat/completions", "chat/completions", "v1/completions", "completions"})
_HUGGING_FACE = frozenset(
    {
        "embed",
        "embed_sparse",
        "generate",
        "generate_stream",
        "health",
        "hf",
        "info",
        "k",
        "predict",
        "similarity",
        "tokenize",
    }
)
_OPENAI = frozenset({"v1", "v2", "embeddings", "models", "chat", "completions", "rerank"})


def face_of(path: str, headers: Mapping[bytes, bytes]) -> str:
    """The face that a path belongs to, so that even an unknown path is answered in a known dialect.

    Args:
        path: of the request.
        headers: of the request, their names in lower case.
    """
    _, head, *rest = path.split("/", 3) if path.startswith("/") else ("", "")
    if head in {"", "_inference"}:
        return "elastic"
    if head == "hf" and len(rest) > 1:
        tail = rest[1].rstrip("/")
        if tail in _OPENAI_TAILS or (tail in _SHARED_TAILS and not is_hugging_faces(headers)):
            return "openai"
    if head in _HUGGING_FACE:
        return "huggingface"
    if head in _OPENAI:
        return "openai"
    return "console" if head == "ui" else "own"


def dialect_of(path: str, face: str) -> str:
    """The dialect of a path's errors, where it is not the face's own."""
    return "jina" if face == "openai" and path.rstrip("/").endswith(("/rerank", "/embeddings")) else ""


def is_hugging_faces(headers: Mapping[bytes, bytes]) -> bool:
    """Whether one of Hugging Face's own clients asks: huggingface_hub, or @huggingface/inference."""
    agent = headers.get(b"user-agent", b"")
    return b"hf_hub/" in agent or b"@huggingface/" in agent


def is_elasticsearch(headers: Mapping[bytes, bytes]) -> bool:
    """Whether an Elasticsearch asks, which calls its services with Apache's client."""
    return headers.get(b"user-agent", b"").startswith(b"Apache-HttpAsyncClient/")
