"""Fields of Jina's and Voyage's embeddings API, which are OpenAI's with other options."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hubgate.domain.endpoint import InputType, OutputDtype
from hubgate.domain.errors import InvalidRequest

_TASKS = {
    "retrieval.query": InputType.SEARCH,
    "retrieval.passage": InputType.INGEST,
    "classification": InputType.CLASSIFICATION,
    "separation": InputType.CLUSTERING,
    # Compares texts of one kind, as clustering does: both sides get the same prefix.
    "text-matching": InputType.CLUSTERING,
}


class OtherOptions(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    output_dimension: int | None = None
    """Voyage's name for `dimensions`."""
    output_dtype: OutputDtype | None = None
    """Voyage's."""
    truncation: bool | None = None
    """Voyage's; `truncate` is Jina's. Without it, what the endpoint does by default."""
    truncate: bool | None = None
    task: str | None = None
    """Jina's name for `input_type`."""
    normalized: bool | None = None
    """Jina's: whether vectors have length 1. Without it, as the model returns them."""
    embedding_type: Literal["float", "base64", "binary", "ubinary"] | None = None
    """Jina's name for `encoding_format` and `output_dtype`."""
    late_chunking: bool | None = None
    """Jina's."""

    def parsed_dtype(self) -> OutputDtype:
        if self.output_dtype is None and self.embedding_type in {"binary", "ubinary"}:
            return OutputDtype(self.embedding_type)
        return self.output_dtype or OutputDtype.FLOAT

    def parsed_task(self) -> InputType | None:
        """The input type that `task` means.

        Raises:
            InvalidRequest: it is unknown, or it requires other vectors than hubgate's input types.
        """
        if self.late_chunking:
            raise InvalidRequest(
                "[late_chunking] is not supported: each text is embedded by itself.",
                remedy="Omit it, or send whole texts with [chunking_settings].",
            )
        if self.task is None:
            return None
        if self.task not in _TASKS:
            raise InvalidRequest(
                f"[task] is not supported: '{self.task[:100]}'.", remedy=f"Use one of: {', '.join(_TASKS)}."
            )
        return _TASKS[self.task]


def text_of(item: Any) -> Any:
    """The text of Jina's `{"text"}`; any other item is returned unchanged."""
    match item:
        case {"text": text, **rest} if not rest:
            return text
    return item
