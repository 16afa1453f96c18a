"""Each endpoint is dispatched to its source."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hubgate.core.vectors import dimensions
from hubgate.domain.calls import Embed, Vectors
from hubgate.domain.endpoint import Endpoint, Source, Target, Task
from hubgate.domain.errors import RuntimeFailed
from hubgate.settings import Settings
from hubgate.upstreams.sources import ModelSources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[ModelSources]:
    sources = ModelSources(Settings(home=tmp_path, secret_key_file=tmp_path / "key"))
    yield sources
    await sources.close()


async def test_fake_endpoint_works_without_a_server(sources: ModelSources) -> None:
    fake = Endpoint(name="f", task=Task.TEXT_EMBEDDING, source=Source.FAKE, dimensions=3)
    facts = await sources.detect(Target(fake))
    vectors = await sources.open(Target(replace(fake, facts=facts)))(Embed(texts=["a"]))
    assert isinstance(vectors, Vectors)
    assert dimensions(vectors.items[0], vectors.encoding) == facts.dimensions == 3


async def test_local_endpoint_uses_the_local_source(sources: ModelSources, tmp_path: Path) -> None:
    local = Endpoint(name="l", task=Task.TEXT_EMBEDDING, source=Source.LOCAL, model=str(tmp_path))
    with pytest.raises(RuntimeFailed):
        await sources.detect(Target(local))
    upstream = sources.open(Target(local))
    with pytest.raises(RuntimeFailed):
        await upstream(Embed(texts=["a"]))
    await upstream.close()
