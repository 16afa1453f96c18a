"""CPU time of converting and checking vectors, compiled and in Python.

All take turns, round after round, with the same random replies; the figures are the medians of a whole reply in µs.

    python benchmarks/vector_codec.py [--quick]
"""

from __future__ import annotations

import argparse
import math
import random
import struct
import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import orjson
from support.table import show

from hubgate.core.vector_codec import pure
from hubgate.core.vectors import f32_to_base64

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

SHAPES = ((8, 384), (1, 1024))
_REPLIES = 100
"""So many that the processor cannot predict their digits."""
_INT8_SCALE = 500.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    rounds = 3 if parser.parse_args().quick else 31
    try:
        from hubgate.core.vector_codec import compiled  # noqa: PLC0415 - may be absent
    except ImportError:
        raise SystemExit("hubgate was built without its compiled codec") from None
    for texts, dimensions in SHAPES:
        replies = [[_vector(dimensions) for _ in range(texts)] for _ in range(_REPLIES)]
        works = {**_works("compiled", compiled, replies), **_works("pure", pure, replies)}
        works["write", "pure, without numpy"] = [partial(_convert, _doubles, items) for items in replies]
        taken: dict[tuple[str, str], list[float]] = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                taken[name].append(_microseconds(work))
        print(f"\n{texts} × {dimensions}, CPU µs a reply\n")
        fastest = {
            what: min(map(median, (t for (w, _), t in taken.items() if w == what))) for what, _ in works
        }
        rows = [
            (f"{what}, {codec}", f"{median(times):.1f}", f"{median(times) / fastest[what]:.1f}")
            for (what, codec), times in sorted(taken.items())
        ]
        show(("", "CPU µs", "to the fastest"), rows)
        short, long = (sum(map(len, map(write, replies[0]))) for write in (compiled.to_json, _doubles))
        print(f"\nJSON: {short / 1000:.1f} kB compiled or with numpy, {long / 1000:.1f} kB without both")


def _works(
    name: str, codec: ModuleType, replies: Sequence[Sequence[bytes]]
) -> dict[tuple[str, str], Sequence[Callable[[], object]]]:
    texts = [list(map(pure.to_json, items)) for items in replies]
    doubles = [list(map(_doubles, items)) for items in replies]
    bodies = [b"[%b]" % b",".join(items) for items in texts]
    strings = [[b'"%b"' % f32_to_base64(item) for item in items] for items in replies]
    return {
        ("write", name): [partial(_convert, codec.to_json, items) for items in replies],
        ("parse", name): [partial(_convert, codec.from_json, items) for items in texts],
        ("parse doubles", name): [partial(_convert, codec.from_json, items) for items in doubles],
        ("int8", name): [partial(_convert, partial(_int8, codec), items) for items in replies],
        ("read base64", name): [partial(codec.from_base64, items) for items in strings],
        ("split and check", name): [partial(codec.split_json, body) for body in bodies],
    }


def _convert(convert: Callable[[bytes], bytes], items: Sequence[bytes]) -> list[bytes]:
    return list(map(convert, items))


def _int8(codec: ModuleType, item: bytes) -> bytes:
    return bytes(codec.int8(item, _INT8_SCALE))


def _vector(dimensions: int) -> bytes:
    numbers = [random.gauss(0, 1) for _ in range(dimensions)]
    length = math.hypot(*numbers)
    return struct.pack(f"<{dimensions}f", *[number / length for number in numbers])


def _doubles(item: bytes) -> bytes:
    """What the pure codec does without numpy."""
    return orjson.dumps(struct.unpack(f"<{len(item) // 4}f", item))


def _microseconds(works: Sequence[Callable[[], object]]) -> float:
    start = time.process_time_ns()
    for work in works:
        work()
    return (time.process_time_ns() - start) / len(works) / 1000


if __name__ == "__main__":
    main()
