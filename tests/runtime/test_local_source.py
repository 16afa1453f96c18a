from __future__ import annotations

from typing import TYPE_CHECKING

from tiny_model import write_tiny_model

from hubgate.domain.endpoint import Endpoint, Source, Target, Task
from hubgate.upstreams.local.source import LocalSource

if TYPE_CHECKING:
    from pathlib import Path


async def test_local_model_uses_folder_name_and_reports_its_prompts(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    write_tiny_model(folder)
    endpoint = Endpoint(name="mine", task=Task.TEXT_EMBEDDING, source=Source.LOCAL, model=str(folder))
    facts = await LocalSource().detect(Target(endpoint))
    assert facts.model == "my-model"
    assert facts.prompts == {"query": "w1 w2 ", "nothing": ""}
