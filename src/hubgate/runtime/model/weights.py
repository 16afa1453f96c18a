"""Reading a safetensors file: eight bytes of length, a JSON header of that length, then the raw numbers.

Source: the description of the format. The tensors follow the header without gaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hubgate.domain.errors import RuntimeFailed

Array = np.ndarray[Any, Any]

_BF16 = np.dtype([("bf16", "<u2")])
"""The upper half of an f32. numpy has no such type."""
_NUMBERS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": _BF16,
    "I64": np.dtype("<i8"),
}
_HEAD = 8
_MAX_HEADER_BYTES = 100_000_000
"""By the format."""
_MAX_AXES = 8


class _Entry(NamedTuple):
    """A tensor in the header."""

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @classmethod
    def of(cls, name: str, entry: Any) -> _Entry:
        """Raises ValueError, TypeError or KeyError: the entry is invalid."""
        kind, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, start, stop]
        if not isinstance(kind, str) or len(shape) > _MAX_AXES or not all(map(_is_size, numbers)):
            raise ValueError(name)
        return cls(name, kind, tuple(shape), start, stop)


def read_weights(file: Path) -> dict[str, Array]:
    """The tensors of a file by name, memory-mapped, for `as_f32`. Those of data types that are not used are left out.

    Raises:
        RuntimeFailed: the file is incomplete, or not safetensors.
    """
    try:
        data = np.memmap(file, dtype=np.uint8, mode="r")
        header, numbers = _parts(data)
        entries = [_Entry.of(name, entry) for name, entry in header.items() if name != "__metadata__"]
        return dict(_tensors(entries, numbers))
    except OSError as error:
        raise _unusable(file, f"cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unusable(file, "is not a complete safetensors file") from error


def as_f32(tensor: Array) -> Array:
    """The numbers of a tensor in f32, which has the values of f16 and bf16 exactly."""
    if tensor.dtype == _BF16:
        return (tensor["bf16"].astype(np.uint32) << 16).view(np.float32)
    return tensor.astype(np.float32, copy=False)


def _parts(data: Array) -> tuple[Mapping[str, Any], Array]:
    """The header, and the data. Raises ValueError: the header is missing or too long."""
    length = int.from_bytes(data[:_HEAD].tobytes(), "little")
    if length > min(_MAX_HEADER_BYTES, data.size - _HEAD):
        raise ValueError("header")
    return json.loads(data[_HEAD : _HEAD + length].tobytes()), data[_HEAD + length :]


def _tensors(entries: list[_Entry], data: Array) -> Iterator[tuple[str, Array]]:
    """Raises ValueError: the tensors overlap, have gaps between them, or do not have the size of their shape."""
    reached = 0
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.stop)):
        if entry.start != reached or entry.stop < reached:
            raise ValueError(entry.name)
        reached = entry.stop
    if reached != data.size:
        raise ValueError("size")
    for entry in entries:
        kind = _NUMBERS.get(entry.kind)
        if kind is None:
            continue
        if entry.stop - entry.start != math.prod(entry.shape) * kind.itemsize:
            raise ValueError(entry.name)
        yield entry.name, data[entry.start : entry.stop].view(kind).reshape(entry.shape)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _unusable(file: Path, reason: str) -> RuntimeFailed:
    return RuntimeFailed(f"The weights {file.name} {reason}.", remedy="Download the model again.")
