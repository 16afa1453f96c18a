"""What a job takes, before it starts. It reads, checks and cuts the input with the code of the job.

The input is read twice: all of it to count rows, requests and the rows that are not sent, then up to the last row of
the sample, which the gateway measures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hubgate.core.estimates.estimate import Allowance, Estimate, Input, MeasuredSample, TextMeasure, estimate
from hubgate.core.estimates.sampling import SAMPLE_TEXTS, SizeClasses
from hubgate.core.results import utf8_size
from hubgate.domain.errors import Cause, HubgateError
from hubgate.features.bulk.engine.rows import Row, Source
from hubgate.features.bulk.engine.shards import MAX_SHARD_BYTES, cut_shards
from hubgate.features.bulk.folder import RunOptions, Task
from hubgate.features.bulk.formats.formats import open_source

Measure = Callable[[Sequence[str]], tuple[Sequence[TextMeasure], Allowance]]
"""Measures some texts. Raises `HubgateError`; its cause is `BODY_TOO_LARGE` if the texts are too large for a request."""
_MEASURED_ROWS = 64


def estimate_job(
    task: Task, options: RunOptions, measure: Measure, *, sample_rows: int = SAMPLE_TEXTS
) -> Estimate:
    """Estimate a job.

    Raises:
        JobStopped: the input cannot be read, or was written to meanwhile.
        HubgateError: the endpoint cannot be measured.
    """
    source = open_source(Path(task.input), task.columns)
    refused: Counter[str] = Counter()
    sizes, rows, requests = SizeClasses(), 0, 0
    for shard in cut_shards(source.rows(), task.rows_per_request):
        rows += shard.size
        requests += bool(shard.rows)
        refused.update(failed.cause for failed in shard.failed)
        for row in shard.rows:
            sizes.add(utf8_size(row.text))
    sample = MeasuredSample(sizes.sample(sample_rows))
    allowance = _measure_sample(source, sample, measure)
    source.check()
    of = Input(
        rows=rows,
        refused=dict(refused),
        requests=requests,
        bytes=sizes.bytes,
        rows_in_flight=options.concurrency * task.rows_per_request,
        uses_cache=options.cached,
    )
    return estimate(of, sample, allowance, options.price_per_million_tokens)


def _measure_sample(source: Source, sample: MeasuredSample, measure: Measure) -> Allowance:
    _, allowance = measure(["."])  # an endpoint that does not exist is an error, also without rows
    for texts in _batches(_sampled(source, sample)):
        measured, allowance = _measured(texts, measure, allowance)
        for text, one in zip(texts, measured, strict=True):
            sample.add(utf8_size(text), one)
    return allowance


def _sampled(source: Source, sample: MeasuredSample) -> Iterator[str]:
    left = sample.rows
    for row in source.rows() if left else ():
        if isinstance(row, Row) and sample.takes(utf8_size(row.text)):
            yield row.text
            left -= 1
            if not left:
                return


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and (len(batch) == _MEASURED_ROWS or size + len(text) > MAX_SHARD_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


def _measured(
    texts: Sequence[str], measure: Measure, allowance: Allowance
) -> tuple[Sequence[TextMeasure], Allowance]:
    """As in a run, a request that is too large is split until a single text is left, which fails."""
    try:
        return measure(texts)
    except HubgateError as error:
        if error.cause is not Cause.BODY_TOO_LARGE:
            raise
    if len(texts) == 1:
        return [TextMeasure(vectors=0, rejected=True)], allowance
    half = len(texts) // 2
    first, allowance = _measured(texts[:half], measure, allowance)
    second, allowance = _measured(texts[half:], measure, allowance)
    return [*first, *second], allowance
