"""What walks the numbers of vectors: compiled, if hubgate was built with a C compiler, and otherwise in Python.

`hatch_build.py` builds `compiled.c`. `pure.py` says what the functions do.
"""

from __future__ import annotations

try:
    from hubgate.core.vector_codec.compiled import (
        count_json,
        from_base64,
        from_json,
        int8,
        is_finite,
        split_json,
        to_json,
    )
except ImportError:
    from hubgate.core.vector_codec.pure import (
        count_json,
        from_base64,
        from_json,
        int8,
        is_finite,
        split_json,
        to_json,
    )

__all__ = [
    "IS_COMPILED",
    "count_json",
    "from_base64",
    "from_json",
    "int8",
    "is_finite",
    "split_json",
    "to_json",
]

IS_COMPILED = "pure" not in to_json.__module__
