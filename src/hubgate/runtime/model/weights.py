"""Reading a safetensors file: eight bytes of length, a JSON header of that length, then the raw numbers.

Source: the format's own description. The tensors fill what follows the header, one after the other and without gaps.
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

_NUMBERS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I64": np.dtype("<i8")}
_HEAD = 8
_MOST_HEADER = 100_000_000
"""Bytes, as the format has it."""
_MOST_AXES = 8


class _Entry(NamedTuple):
    """One tensor, as the header tells of it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @classmethod
    def of(cls, name: str, told: Any) -> _Entry:
        """Raises ValueError or TypeError or KeyError: the header does not tell of it as it should."""
        kind, shape, (start, stop) = told["dtype"], told["shape"], told["data_offsets"]
        numbers = [*shape, start, stop]
        if not isinstance(kind, str) or len(shape) > _MOST_AXES or not all(map(_is_size, numbers)):
            raise ValueError(name)
        return cls(name, kind, tuple(shape), start, stop)


def read_weights(file: Path) -> dict[str, Array]:
    """The tensors of a file by name, mapped and not read: pages are loaded as they are touched.

    Those of kinds of numbers that this runtime does not use are left out.

    Raises:
        RuntimeFailed: the file is not whole, or not safetensors.
    """
    try:
        data = np.memmap(file, dtype=np.uint8, mode="r")
        header, numbers = _parts(data)
        entries = [_Entry.of(name, told) for name, told in header.items() if name != "__metadata__"]
        return dict(_tensors(entries, numbers))
    except OSError as error:
        raise _unusable(file, f"cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unusable(file, "is not a whole safetensors file") from error


def _parts(data: Array) -> tuple[Mapping[str, Any], Array]:
    """The header, and what follows it. Raises ValueError: it is not there, or too long."""
    length = int.from_bytes(data[:_HEAD].tobytes(), "little")
    if length > min(_MOST_HEADER, data.size - _HEAD):
        raise ValueError("header")
    return json.loads(data[_HEAD : _HEAD + length].tobytes()), data[_HEAD + length :]


def _tensors(entries: list[_Entry], data: Array) -> Iterator[tuple[str, Array]]:
    """Raises ValueError: the tensors overlap, leave gaps, or are not as large as their shapes."""
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
