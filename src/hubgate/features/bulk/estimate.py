"""The command `hubgate job estimate`, and `hubgate job run --dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from hubgate.core.estimates.estimate import Allowance, Estimate, TextMeasure
from hubgate.domain.errors import Cause, HubgateError
from hubgate.features.bulk.measure import estimate_job
from hubgate.features.bulk.progress import duration
from hubgate.features.bulk.waking import Sleeping, sleeping
from hubgate.settings import Settings
from hubgate.terminal.client import CommandFailed, api, own_gateway, require_home, segment
from hubgate.terminal.printing import print_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.core.estimates.sampling import Total
    from hubgate.features.bulk.folder import RunOptions, Task

_LIMITS = {
    "requests_per_minute": "the endpoint's requests per minute",
    "tokens_per_minute": "the endpoint's tokens per minute",
    "concurrency": "the model's server, as fast as it was lately",
}


class _Measured(msgspec.Struct):
    texts: list[TextMeasure]
    allowance: Allowance


def print_estimate(task: Task, options: RunOptions, *, sample_rows: int, as_json: bool) -> None:
    """Estimate a job, and print it.

    Raises:
        CommandFailed: the endpoint cannot be used.
        HubgateError: the input cannot be read.
    """

    def measure(texts: Sequence[str]) -> tuple[Sequence[TextMeasure], Allowance]:
        body = {"texts": list(texts), "input_type": task.input_type, "chunk": task.chunk}
        try:
            reply = api("POST", f"/api/endpoints/{segment(task.endpoint)}/measure", body)
        except CommandFailed as error:
            if error.cause != Cause.BODY_TOO_LARGE:
                raise
            raise HubgateError(str(error), cause=Cause.BODY_TOO_LARGE) from error
        measured = msgspec.convert(reply, _Measured)
        return measured.texts, measured.allowance

    settings = Settings.from_env()
    require_home(settings)
    with own_gateway.get()(settings):
        found = estimate_job(task, options, measure, sample_rows=sample_rows)
        wakes = _wakes(task.endpoint)
    if as_json:
        print(msgspec.json.encode({**msgspec.structs.asdict(found), "wakes": wakes}).decode())
    else:
        fields = _fields(found, uses_cache=options.cached, chunked=task.chunk)
        if wakes is None:
            fields["will wake"] = "unknown: Hugging Face could not be asked"
        elif wakes:
            fields["will wake"] = "; ".join(one.words for one in wakes)
        print_fields(fields)


def _wakes(endpoint: str) -> Sequence[Sleeping] | None:
    """The Inference Endpoints that the job wakes; `None` if Hugging Face cannot be asked."""
    try:
        return sleeping(endpoint)
    except CommandFailed:
        return None


def _fields(found: Estimate, *, uses_cache: bool, chunked: bool) -> dict[str, Any]:
    refused = ", ".join(f"{cause} {count:,}" for cause, count in found.refused.items())
    error = "; ± is the 95 % interval" if found.vectors.error or found.tokens.error else ""
    sent = found.rows - sum(found.refused.values())
    note = "" if found.tokens_counted else "; estimated from the size of the texts: no tokenizer"
    cache = "" if uses_cache or not found.cached.value else "; used with --cache only"
    return {
        "rows": f"{found.rows:,}",
        "rows not sent": refused or "0",
        "measured rows": f"{found.sampled_rows:,} of {sent:,}{error}",
        "requests": f"{found.requests:,}",
        "chunks" if chunked else "vectors": _total(found.vectors),
        "tokens": f"{_total(found.tokens)}{note}",
        "longer than the model reads": "unknown" if found.over_limit is None else _rows(found.over_limit),
        **({"too large for a request": _rows(found.rejected)} if found.rejected.value else {}),
        "in the vector cache": f"{_rows(found.cached)}{cache}",
        **(
            {}
            if found.model_requests is None
            else {"requests to the model": f"about {found.model_requests:,}"}
        ),
        "time": _time(found),
        "cost": _cost(found),
    }


def _total(total: Total) -> str:
    return f"{total.value:,.0f}" if not total.error else f"{total.value:,.0f} ± {total.error:,.0f}"


def _rows(total: Total) -> str:
    return f"{_total(total)} {'row' if (total.value, total.error) == (1, 0) else 'rows'}"


def _time(found: Estimate) -> str:
    if found.seconds is None or found.limited_by is None:
        return "unknown: the endpoint has no rate limit, and its speed is not known yet"
    return f"at least {duration(found.seconds)}, limited by {_LIMITS[found.limited_by]}"


def _cost(found: Estimate) -> str:
    if found.dollars is None:
        return "unknown: give the price with --price-per-million-tokens"
    if found.priced_by == "dollars_per_hour":
        return f"at least ${found.dollars:,.2f}, by the hours of one replica of the Inference Endpoint"
    return f"about {found.dollars:,.4f}"
