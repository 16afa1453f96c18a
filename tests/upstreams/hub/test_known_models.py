"""Every row of the table of prefixes in docs/models.md, from a Hub with the configuration files of the models.

The files are in tests/data/model_prompts.json; the table says of each how far it is verified.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lookalikes.hub_api import PROMPTS, HubModels

from hubgate.core.prompts import find_prefixes
from hubgate.domain.endpoint import Endpoint, Facts, InputType, PrefixSource, Source, Target, Task
from hubgate.settings import Settings
from hubgate.upstreams.hub.client import open_hub
from hubgate.upstreams.hub.prompts import read_prompts

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
FILES = json.loads((ROOT / "tests/data/model_prompts.json").read_text("utf-8"))
TEXTS = {
    "none": "",
    "*sentence*": "Represent this sentence for searching relevant passages: ",
    "*web search*": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
}
TEXTS["*web search* and a space"] = TEXTS["*web search*"] + " "
SOURCES = {
    "its files": PrefixSource.MODEL,
    "hubgate's table": PrefixSource.TABLE,
    "nothing": PrefixSource.NONE,
}


def _rows() -> dict[str, list[str]]:
    """The cells of each model of the table, after its name."""
    section = (ROOT / "docs/models.md").read_text("utf-8").partition("## Prefixes of known models")[2]
    rows = {}
    for line in section.partition("\n## ")[0].splitlines():
        if line.startswith("| `"):
            name, *cells = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            rows[name.strip("`")] = cells
    return rows


ROWS = _rows()


def _text(cell: str) -> str:
    if cell in TEXTS:
        return TEXTS[cell]
    assert cell.startswith("`"), cell
    return cell[1:-1].replace("\\n", "\n").replace("\\|", "|")


@pytest.fixture(scope="module")
def site() -> Iterator[HubModels]:
    hub = HubModels({model: {PROMPTS: config} for model, config in FILES.items()})
    with hub.running():
        yield hub


def test_table_has_the_models_whose_files_are_here() -> None:
    assert len(ROWS) >= 40
    assert list(ROWS) == list(FILES)


@pytest.mark.parametrize("model", ROWS)
async def test_row_is_what_hubgate_finds(site: HubModels, model: str) -> None:
    search, ingest, others, source, _ = ROWS[model]
    kinds = re.split(r"(?<=`), (?=`)", others)
    endpoint = Endpoint(
        name="e", task=Task.TEXT_EMBEDDING, source=Source.ROUTER, model=model, facts=Facts(model=model)
    )
    hub = open_hub(replace(Settings.from_env({}), hf_endpoint=site.url))
    try:
        prompts = await read_prompts(hub, Target(endpoint))
    finally:
        await hub.close()
    found = find_prefixes(model, prompts.texts, prompts.default)
    assert found.source is SOURCES[source]
    assert {kind: found.texts.get(kind, "") for kind in InputType} == {
        InputType.SEARCH: _text(search),
        InputType.INGEST: _text(ingest),
        InputType.CLASSIFICATION: _text(kinds[0]),
        InputType.CLUSTERING: _text(kinds[-1]),
    }


@pytest.mark.parametrize("model", [name for name, cells in ROWS.items() if cells[3] == "its files"])
def test_built_in_table_does_not_contradict_the_models_files(model: str) -> None:
    known = find_prefixes(model, None)
    if known.source is PrefixSource.TABLE:
        files = find_prefixes(model, FILES[model]["prompts"])
        assert known.texts == files.texts
