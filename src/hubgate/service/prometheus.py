"""Prometheus' text format, version 0.0.4: families of samples, as lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def labels(**values: str) -> str:
    """The labels of a sample, in the order given."""
    pairs = ",".join(f'{name}="{value.translate(_ESCAPED)}"' for name, value in values.items())
    return f"{{{pairs}}}" if pairs else ""


class Family(NamedTuple):
    """Samples with one name. The lines of a family must follow each other."""

    name: str
    """Of a counter, with `_total`."""
    type: str
    """`counter`, `gauge` or `histogram`."""
    help: str

    def lines(self, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
        """The lines of the family, from the labels (see `labels`) and value of each sample."""
        yield f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.type}\n"
        name = self.name
        for label_text, value in samples:
            yield f"{name}{label_text} {float(value)}\n"

    def histogram_lines(
        self, series: Iterable[tuple[str, Iterable[tuple[str, int]], float]]
    ) -> Iterator[str]:
        """The lines of a histogram, one string for each series.

        Args:
            series: labels (at least one), cumulative counts by upper bound (the last is `+Inf`), and the sum.
        """
        yield from self.lines(())
        for label_text, buckets, total in series:
            count, lines, first = 0, [], label_text[:-1]
            for bound, count in buckets:
                lines.append(f'{self.name}_bucket{first},le="{bound}"}} {float(count)}\n')
            lines.append(f"{self.name}_count{label_text} {float(count)}\n")
            lines.append(f"{self.name}_sum{label_text} {float(total)}\n")
            yield "".join(lines)
