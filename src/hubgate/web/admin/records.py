"""The gate's own API: how much was used, and who changed what."""

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
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.service.usage import GROUPS
from hubgate.web.admin.openapi import ApiRoute, json_response

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_USUAL_DAYS = 7
_MOST_CHANGES = 1000
_LAST_MOMENT = 253_402_300_799
"""Of the year 9999."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class RecordsApi:
    """Reading what the gate has written down."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access

    async def usage(self, request: Request) -> Response:
        """The use of endpoints in some time, in groups; JSON, or CSV where that is asked for."""
        names = {key.id: key.name for key in self._access.list()}
        question = _question(request.query_params, {name: key_id for key_id, name in names.items()})
        if _wants_csv(request):
            return usage_csv(question.by, await self._gateway.usage.pages(question), names)
        rows = await self._gateway.usage.report(question)
        shown = [_row_json(question.by, row, names) for row in rows]
        return json_response(
            {
                "from": _moment(question.start),
                "to": _moment(question.end),
                "by": question.by,
                "rows": shown,
            }
        )

    async def audit(self, request: Request) -> Response:
        """The newest changes first."""
        asked = request.query_params
        limit = _whole("limit", asked.get("limit", "100"), 1, _MOST_CHANGES)
        before = asked.get("before")
        first = None if before is None else _whole("before", before, 0, 2**62)
        changes = await self._gateway.audit.read(limit, first)
        names = {key.id: key.name for key in self._access.list()}
        shown = [
            {
                "id": number,
                "at": change.at,
                "who": change.who,
                "who_name": names.get(change.who, change.who),
                "verb": change.verb,
                "subject": change.subject,
                "changes": change.changes,
            }
            for number, change in changes
        ]
        return json_response({"changes": shown})

    def routes(self) -> Sequence[ApiRoute]:
        """The rows of these verbs."""
        return (
            ApiRoute(
                method="GET",
                path="/usage",
                answer=self.usage,
                media=("application/json", "text/csv"),
                summary="How much was used: requests, texts, tokens, errors, latency, queue time, cache, upstream.",
                query={
                    "from": f"a date, a time (ISO 8601, UTC) or seconds since 1970; {_USUAL_DAYS} days ago unless told",
                    "to": "the same, excluded; now unless told",
                    "by": f"some of {', '.join(GROUPS)}, with commas between; else one row of all",
                    "endpoint": "only of this endpoint",
                    "key": "only of the key of this id or name",
                    "format": "csv; so does Accept: text/csv",
                },
            ),
            ApiRoute(
                method="GET",
                path="/audit",
                answer=self.audit,
                summary="Who changed what, the newest first.",
                query={
                    "limit": f"how many, 100 unless told, at most {_MOST_CHANGES}",
                    "before": "the id of a change: only older ones",
                },
            ),
        )


def _row_json(by: Sequence[str], row: UsageRow, names: Mapping[str, str]) -> dict[str, Any]:
    """Groups first. Rows by cause tell requests alone, for only those have one."""
    shown: dict[str, Any] = {}
    for word, value in zip(by, row.group, strict=True):
        shown[word] = _at(word, value)
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
    """Use as a table for spreadsheets, sent page by page, however many rows there are.

    Args:
        by: how it is grouped.
        pages: the groups.
        names: of keys, by their ids.
        file: the name under which a browser stores it.
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
    written = io.StringIO()
    writer = csv.DictWriter(written, [*keys, *numbers])
    writer.writeheader()
    async for rows in pages:
        for row in rows:
            shown = _row_json(by, row, names)
            writer.writerow({name: _plain(value) for name, value in shown.items()})
        yield written.getvalue()
        written.seek(0)
        written.truncate()


def _plain(value: object) -> object:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _at(word: str, value: str | int) -> str:
    if word == "day":
        return datetime.fromtimestamp(float(value), UTC).strftime("%Y-%m-%d")
    return _moment(int(value)) if word == "hour" else str(value)


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _question(asked: QueryParams, ids: Mapping[str, str]) -> UsageQuery:
    now = int(time.time())
    start = _seconds("from", asked.get("from"), now - _USUAL_DAYS * DAY)
    end = _seconds("to", asked.get("to"), now + 1)
    if start >= end:
        raise InvalidRequest("[from] is not before [to].")
    by = tuple(dict.fromkeys(word.strip() for word in asked.get("by", "").split(",") if word.strip()))
    key = asked.get("key")
    return UsageQuery(
        start=start,
        end=end,
        by=by,
        endpoint=asked.get("endpoint"),
        key=None if key is None else ids.get(key, key),
    )


def _seconds(name: str, given: str | None, default: int) -> int:
    if not given:
        return default
    if given.isascii() and given.isdigit() and len(given) <= 11:
        return int(given)
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise InvalidRequest(
            f"[{name}] is no time: {given[:40]}.",
            remedy="Write 2026-11-21, 2026-11-21T05:00Z, or seconds since 1970.",
        ) from None
    seconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    return min(max(0, seconds), _LAST_MOMENT)


def _whole(name: str, given: str, low: int, high: int) -> int:
    if not given.isascii() or not given.isdigit() or len(given) > 19 or not low <= int(given) <= high:
        raise InvalidRequest(f"[{name}] is a whole number from {low} to {high}.")
    return int(given)


def _wants_csv(request: Request) -> bool:
    word = request.query_params.get("format")
    if word not in {None, "csv", "json"}:
        raise InvalidRequest("[format] is csv or json.")
    return word == "csv" or (word is None and "text/csv" in request.headers.get("accept", ""))
