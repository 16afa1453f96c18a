"""Which face a path belongs to."""

from __future__ import annotations

# Who calls these below /hf/{endpoint} is a client of OpenAI's.
_OPENAI_TAILS = frozenset({"v1/embeddings", "embeddings", "v1/rerank", "v2/rerank"})
# Here every kind of client calls. OpenAI's own say who they are, and show the text of no other error.
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


def face_of(path: str, *, openais: bool = False) -> str:
    """The face that a path belongs to, so that even an unknown path is answered in a known dialect.

    `openais` is whether one of OpenAI's own clients asks.
    """
    _, head, *rest = path.split("/", 3) if path.startswith("/") else ("", "")
    if head in {"", "_inference"}:
        return "elastic"
    if head == "hf" and len(rest) > 1:
        tail = rest[1].rstrip("/")
        if tail in _OPENAI_TAILS or (openais and tail in _SHARED_TAILS):
            return "openai"
    if head in _HUGGING_FACE:
        return "huggingface"
    if head in _OPENAI:
        return "openai"
    return "console" if head == "ui" else "own"
