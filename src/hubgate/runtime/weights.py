"""Reading a safetensors file: eight bytes of length, a JSON header of that length, then the raw numbers."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from hubgate.domain.errors import RuntimeFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_NUMBERS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I64": np.dtype("<i8")}


def read_weights(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of a file by name, mapped and not read: pages are loaded as they are touched.

    Raises:
        RuntimeFailed: the file is not whole, or not safetensors.
    """
    try:
        data = np.memmap(file, dtype=np.uint8, mode="r")
        length = int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8 : 8 + length].tobytes())
        return dict(_tensors(header, data[8 + length :]))
    except OSError as error:
        raise _unusable(file, f"cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(file, "is not a whole safetensors file") from error


def _tensors(
    header: Mapping[str, Any], data: np.ndarray[Any, Any]
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in _NUMBERS:
            continue
        kind, shape, (start, stop) = _NUMBERS[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if not 0 <= start <= stop <= data.size or stop - start != math.prod(shape) * kind.itemsize:
            raise ValueError(name)
        yield name, data[start:stop].view(kind).reshape(shape)


def _unusable(file: Path, reason: str) -> RuntimeFailed:
    return RuntimeFailed(f"The weights {file.name} {reason}.", remedy="Download the model again.")
