"""`/api/usage`: usage as JSON or CSV."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from hubgate.domain.errors import InvalidRequest
from hubgate.domain.records import COUNTS, DAY, Latency, UsageQuery, UsageRow
from hubgate.features.usage.usage import GROUPS, Usage
from hubgate.service.keys.access import Access
from hubgate.web.admin.openapi import ApiRoute, json_response

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_DEFAULT_DAYS = 7
_MAX_TIME = 253_402_300_799
"""The end of the year 9999."""
_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")


class UsageApi:
    def __init__(self, usage: Usage, access: Access) -> None:
        self._usage = usage
        self._access = access

    async def show(self, request: Request) -> Response:
        names = self._access.names
        query = _query(request.query_params, names)
        if _wants_csv(request):
            return usage_csv(query.by, await self._usage.pages(query), names)
        rows = await self._usage.report(query)
        shown = [_row_json(query.by, row, names) for row in rows]
        return json_response(
            {
                "from": _iso_time(query.start),
                "to": _iso_time(query.end),
                "by": query.by,
                "rows": shown,
            }
        )

    def routes(self) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="GET",
                path="/usage",
                handler=self.show,
                content_types=("application/json", "text/csv"),
                summary="Returns usage: requests, texts, tokens, errors, latency, queue time, cache and upstream requests.",
                query={
                    "from": f"a date, a time (ISO 8601, UTC) or seconds since 1970; {_DEFAULT_DAYS} days ago by default",
                    "to": "the same, exclusive; now by default",
                    "by": f"any of {', '.join(GROUPS)}, separated by commas; by default one row with the total",
                    "endpoint": "only this endpoint",
                    "key": "only the key with this id or name",
                    "format": "csv, as Accept: text/csv",
                },
            ),
        )


def _row_json(by: Sequence[str], row: UsageRow, names: Mapping[str, str]) -> dict[str, Any]:
    """The columns of `by` first. Rows by cause have only `requests`: nothing else is counted by cause."""
    shown: dict[str, Any] = {}
    for word, value in zip(by, row.group, strict=True):
        shown[word] = _group_value(word, value)
        if word == "key":
            shown["key_name"] = names.get(str(value), str(value))
    tally = row.tally
    if "cause" in by:
        return shown | {"requests": tally.requests}
    shown |= {name: getattr(tally, name) for name in COUNTS}
    shown["queue_seconds"] = round(tally.queue_seconds, 6)
    return shown | _times("", tally.latency) | _times("bulk_", tally.bulk_latency)


def _times(prefix: str, latency: Latency) -> dict[str, float | None]:
    seconds = {name: latency.percentile(share) for name, share in PERCENTILES.items()}
    seconds["slowest"] = latency.slowest
    return {f"{prefix}{name}": value and float(f"{value:.4g}") for name, value in seconds.items()}


def usage_csv(
    by: Sequence[str],
    pages: AsyncIterator[Sequence[UsageRow]],
    names: Mapping[str, str],
    file: str | None = None,
) -> Response:
    """Usage as CSV, streamed page by page.

    Args:
        by: the columns that `pages` are grouped by.
        pages: the rows.
        names: key names by id.
        file: the file name that browsers save it under.
    """
    headers = {"content-disposition": f'attachment; filename="{file}"'} if file else {}
    return StreamingResponse(_csv(by, pages, names), media_type="text/csv; charset=utf-8", headers=headers)


async def _csv(
    by: Sequence[str], pages: AsyncIterator[Sequence[UsageRow]], names: Mapping[str, str]
) -> AsyncIterator[str]:
    keys = [name for word in by for name in ((word, "key_name") if word == "key" else (word,))]
    numbers = (
        ("requests",) if "cause" in by else (*COUNTS, *_times("", Latency()), *_times("bulk_", Latency()))
    )
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*keys, *numbers])
    writer.writeheader()
    async for rows in pages:
        for row in rows:
            shown = _row_json(by, row, names)
            writer.writerow({name: _escape_formula(value) for name, value in shown.items()})
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _escape_formula(value: object) -> object:
    """Quote text that a spreadsheet would execute as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_PREFIXES) else value


def _group_value(word: str, value: str | int) -> str:
    if word == "day":
        return datetime.fromtimestamp(float(value), UTC).strftime("%Y-%m-%d")
    return _iso_time(int(value)) if word == "hour" else str(value)


def _iso_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _query(params: QueryParams, names: Mapping[str, str]) -> UsageQuery:
    now = int(time.time())
    start = _parse_time("from", params.get("from"), now - _DEFAULT_DAYS * DAY)
    end = _parse_time("to", params.get("to"), now + 1)
    if start >= end:
        raise InvalidRequest("[from] must be before [to].")
    by = tuple(dict.fromkeys(word.strip() for word in params.get("by", "").split(",") if word.strip()))
    key = params.get("key")
    return UsageQuery(
        start=start,
        end=end,
        by=by,
        endpoint=params.get("endpoint"),
        key=next((key_id for key_id, name in names.items() if name == key), key),
    )


def _parse_time(name: str, given: str | None, default: int) -> int:
    if not given:
        return default
    if given.isascii() and given.isdigit() and len(given) <= 11:
        return int(given)
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise InvalidRequest(
            f"[{name}] is not a valid time: {given[:40]}.",
            remedy="Use 2026-11-21, 2026-11-21T05:00Z, or seconds since 1970.",
        ) from None
    seconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    return min(max(0, seconds), _MAX_TIME)


def _wants_csv(request: Request) -> bool:
    word = request.query_params.get("format")
    if word not in {None, "csv", "json"}:
        raise InvalidRequest("[format] must be csv or json.")
    return word == "csv" or (word is None and "text/csv" in request.headers.get("accept", ""))
