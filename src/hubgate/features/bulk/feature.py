"""Bulk jobs: commands only, which are clients of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hubgate.features.feature import Core, Feature
from hubgate.web.parts import Parts


@asynccontextmanager
async def _open(_: Core) -> AsyncIterator[Parts]:
    yield Parts()


FEATURE = Feature(open=_open, folder=Path(__file__).parent)
