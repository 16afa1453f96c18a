"""Chunking settings, with Elasticsearch's rules and words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkingSettings:
    """How long texts are cut. Sizes are in words."""

    strategy: str = "sentence"
    max_chunk_size: int | None = 250
    sentence_overlap: int | None = 1
    overlap: int | None = None
    separators: tuple[str, ...] | None = None


DEFAULT_CHUNKING = ChunkingSettings()
