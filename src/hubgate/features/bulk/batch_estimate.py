"""What a batch takes before it is created: its input is read and checked by the code of the batch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hubgate.core.estimates.estimate import Estimate, Input, MeasuredSample, TextMeasure, estimate
from hubgate.core.estimates.sampling import SAMPLE_BYTES, SAMPLE_TEXTS, SizeClasses
from hubgate.domain.errors import CallerError, InvalidRequest
from hubgate.domain.records import Key
from hubgate.features.bulk.batches.batches import PATHS, Batches
from hubgate.features.bulk.batches.model import Fault
from hubgate.features.bulk.batches.rows import Row, check_rows, first_url, read_rows
from hubgate.features.bulk.batches.run import CONCURRENCY
from hubgate.service.gateway import Gateway
from hubgate.web.http.errors import EmptyBatch
from hubgate.web.shared.embeddings import parse_input_type, parse_texts

EMBEDDINGS = "/v1/embeddings"
_MAX_MODELS = 20


class ModelEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of a batch to one model."""

    model: str | None
    requests: int
    message: str | None = None
    """The reason, if there is no estimate."""
    estimate: Estimate | None = None


class BatchEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate of a batch. With faults, the batch would fail, and nothing would be sent."""

    path: str
    requests: int
    faults: Sequence[Fault] = ()
    models: Sequence[ModelEstimate] = ()


class _Body(msgspec.Struct):
    """What is read of a request."""

    model: Any = None
    input: Any = None
    input_type: str | None = None
    chunking_settings: dict[str, Any] | None = None


_BODY = msgspec.json.Decoder(_Body)


async def estimate_batch(gateway: Gateway, batches: Batches, key: Key, file_id: str) -> BatchEstimate:
    """Estimate a batch with this input.

    Raises:
        NotFound: the caller has no such file.
        InvalidRequest: the requests of the file go to a path that batches do not support.
    """
    _, path = await batches.files.content(key, file_id)
    size = batches.max_row_bytes
    url = await asyncio.to_thread(first_url, path, size)
    if url is not None and url not in PATHS:
        raise InvalidRequest(
            f"The url of the first request is not supported: '{url[:100]}'.",
            remedy=f"Use one of: {', '.join(PATHS)}.",
        )
    checked = await asyncio.to_thread(check_rows, path, url or EMBEDDINGS, size)
    if checked.faults:
        return BatchEstimate(path=url or EMBEDDINGS, requests=checked.total, faults=checked.faults)
    classes = await asyncio.to_thread(_classes, path, size)
    samples = {
        model: MeasuredSample(one.sample(SAMPLE_TEXTS // len(classes), SAMPLE_BYTES // len(classes)))
        for model, one in classes.items()
    }
    rows = await asyncio.to_thread(_sampled, path, size, samples) if url == EMBEDDINGS else {}
    models = []
    for model, one in classes.items():
        try:
            found = None
            if url == EMBEDDINGS and model is not None:
                found = await _estimate(gateway, model, one, samples[model], rows[model])
            models.append(ModelEstimate(model=model, requests=one.texts, estimate=found))
        except CallerError as error:
            models.append(ModelEstimate(model=model, requests=one.texts, message=error.message))
    return BatchEstimate(path=url or EMBEDDINGS, requests=checked.total, models=models)


def _classes(path: Path, size: int) -> dict[str | None, SizeClasses]:
    """The sizes of the requests, by model; the requests of the models after the first 20 together, as of `None`."""
    found: dict[str | None, SizeClasses] = {}
    for row in read_rows(path, size):
        model = _model(row)
        if model not in found and len(found) >= _MAX_MODELS:
            model = None
        found.setdefault(model, SizeClasses()).add(len(row.body))
    return found


def _sampled(
    path: Path, size: int, samples: Mapping[str | None, MeasuredSample]
) -> dict[str | None, list[bytes]]:
    chosen: dict[str | None, list[bytes]] = {model: [] for model in samples}
    for row in read_rows(path, size):
        model = _model(row)
        if model in samples and samples[model].takes(len(row.body)):
            chosen[model].append(row.body)
    return chosen


def _model(row: Row) -> str | None:
    model = _BODY.decode(row.body).model
    return model if isinstance(model, str) else None


async def _estimate(
    gateway: Gateway, model: str, sizes: SizeClasses, sample: MeasuredSample, bodies: Sequence[bytes]
) -> Estimate:
    called, colon, word = model.partition(":")
    name = gateway.registry.resolve(called).name
    allowance = await gateway.measures.allowance(name)
    for body in bodies:
        form = _BODY.decode(body)
        kind = parse_input_type(form.input_type or (word if colon else None))
        chunked = form.chunking_settings is not None
        try:
            texts = parse_texts(form.input if isinstance(form.input, str | list) else [form.input], "input")
        except (InvalidRequest, EmptyBatch):
            sample.add(len(body), TextMeasure(vectors=0, rejected=True))
            continue
        measures = await gateway.measures.texts(name, texts, kind, chunked=chunked)
        sample.add(len(body), _joined(measures))
    of = Input(
        rows=sizes.texts,
        refused={},
        requests=sizes.texts,
        bytes=sizes.bytes,
        rows_in_flight=CONCURRENCY,
        uses_cache=True,
    )
    return estimate(of, sample, allowance)


def _joined(measures: Sequence[TextMeasure]) -> TextMeasure:
    """The measure of a request with several texts."""
    return TextMeasure(
        vectors=sum(one.vectors for one in measures),
        tokens=sum(one.tokens for one in measures),
        over_limit=any(one.over_limit for one in measures),
        cached=sum(one.cached for one in measures) / len(measures),
        rejected=any(one.rejected for one in measures),
        counted=all(one.counted for one in measures),
    )
