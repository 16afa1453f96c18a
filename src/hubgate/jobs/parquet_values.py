"""What columns of Parquet hold, as Python's values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_NO_VALUE = (ValueError, OverflowError)
"""What reading a value raises that Python has none for: no UTF-8, nanoseconds, a day after the year 9999."""


def values(column: pa.Array) -> list[Any]:
    """The values of a column; for one that Python has none for, such as a text that is not UTF-8, the error."""
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except _NO_VALUE:
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except _NO_VALUE as error:
        return error


def first_fault(read: Iterable[Any]) -> Exception | None:
    """The first error that stands for a value."""
    return next((value for value in read if isinstance(value, _NO_VALUE)), None)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(fits(kind) for fits in _TEXTS)


def is_id_column(kind: pa.DataType) -> bool:
    """Whether a column of this type may name rows."""
    return is_text(kind) or bool(pa.types.is_integer(kind) and kind != pa.uint64())  # written as int64
