"""The table of endpoint fields: complete, and described in the documents."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.endpoint_fields import FIELDS, IDENTITY, PUBLIC_FIELDS

DOCS = Path(__file__).parents[3] / "docs"


def test_every_setting_of_an_endpoint_has_one_row() -> None:
    settings = [each.name for each in fields(Endpoint) if each.name != "facts"]
    assert sorted(field.attribute for field in PUBLIC_FIELDS) == sorted(settings)


def test_the_api_page_describes_every_field() -> None:
    section = (DOCS / "api.md").read_text("utf-8").split("\n## Endpoints\n")[1].split("\n## ")[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("| `"))
    missing = [field.name for field in FIELDS if f"`{field.name}`" not in table]
    assert missing == ["name"], "the sentence above the table names it"


def test_the_api_page_lists_the_fields_that_call_the_model_when_changed() -> None:
    sentence = re.search(r"A PATCH .*?:( `.*?)\.", (DOCS / "api.md").read_text("utf-8"))
    assert sentence
    named = re.findall(r"`(\w+)`", sentence[1])
    assert sorted(named) == sorted({*IDENTITY, "token"} - {"name"})
