"""Several calls for one request."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TypeVar

T = TypeVar("T")


async def all_or_none(calls: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """The answers to all of them, in their order; when one fails, the others are given up and its error is raised.

    A `TaskGroup` would keep the error in a variable that its traceback holds: see `guard._tell`.
    """
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        await _give_up(tasks)
        raise


async def _give_up(tasks: list[asyncio.Task[T]]) -> None:
    """End what goes on, and hold no error any longer."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()
