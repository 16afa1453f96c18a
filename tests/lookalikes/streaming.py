"""Sends the event streams of the look-alikes, and breaks them on demand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from lookalikes.faults import STREAM_FAULTS

if TYPE_CHECKING:
    from lookalikes.model import Answer


async def stream(
    request: web.Request, answer: Answer, fault: str | None, seconds: float, released: asyncio.Event
) -> web.StreamResponse:
    """Send the events, `seconds` apart; a fault comes after the second one."""
    headers = {"Content-Type": "text/event-stream; charset=utf-8"} | dict(answer.headers)
    response = web.StreamResponse(status=answer.status, headers=headers)
    try:
        await response.prepare(request)
        for place, event in enumerate(answer.events):
            if place == 2 and fault == "pause":
                await released.wait()
            elif place == 2 and fault in STREAM_FAULTS:
                await _break(request, response, fault, released)
                break
            await response.write(event)
            if seconds:
                await asyncio.sleep(seconds)
    except ConnectionError as error:
        raise asyncio.CancelledError from error
    return response


async def _break(
    request: web.Request, response: web.StreamResponse, fault: str, released: asyncio.Event
) -> None:
    if fault == "stall":
        await released.wait()
    elif fault == "cut":
        assert request.transport is not None
        request.transport.close()
    else:
        await response.write(STREAM_FAULTS[fault])
