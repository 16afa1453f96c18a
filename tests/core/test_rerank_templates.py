"""The prompts of rerankers that are language models, and the table of rerankers in the documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hubgate.core.rerank_templates import TEMPLATES, rerank_template

MODELS = Path(__file__).parents[2] / "docs" / "models.md"
ROWS = re.findall(
    r"^\| `([^`]+/[^`]+)`[^|]*\| (`[^`]+`|none|by vLLM) \| [^|]+ \| (yes|) *\| [^|]+ \|$",
    MODELS.read_text("utf-8"),
    re.MULTILINE,
)


def test_documents_have_fifteen_rerankers_and_each_template() -> None:
    assert len(ROWS) >= 15
    assert {row.name for row in TEMPLATES} <= {prompt.strip("`") for _, prompt, _ in ROWS}


@pytest.mark.parametrize(("model", "prompt", "instruction"), ROWS)
def test_documented_reranker_has_this_prompt(model: str, prompt: str, instruction: str) -> None:
    found = rerank_template(model)
    assert (found.name if found else None) == (prompt.strip("`") if prompt.startswith("`") else None)
    assert bool(found and found.instructed) == (instruction == "yes")


@pytest.mark.parametrize("row", TEMPLATES, ids=lambda row: row.name)
def test_template_keeps_braces_of_texts(row: object) -> None:
    template = next(one for one in TEMPLATES if one is row)
    opening, closing = template.render("{document} {x}", "{query} {", "{instruction}")
    whole = opening + closing
    assert whole.count("{document} {x}") == 1
    assert whole.count("{query} {") == 1
    assert whole.count("{instruction}") == (1 if template.instructed else 0)


def test_model_is_found_by_repository_folder_or_first_known_name() -> None:
    for name in (
        "Qwen/Qwen3-Reranker-8B",
        "/models/qwen3-reranker-4b/",
        "ggml-org/Qwen3-Reranker-0.6B-Q8_0-GGUF",
    ):
        found = rerank_template(name)
        assert found is not None
        assert found.name == "qwen3-reranker"
    assert rerank_template(None, "rerank", "org/mxbai-rerank-large-v2") is TEMPLATES[1]
    for name in (
        "Qwen/Qwen3-Embedding-0.6B",
        "Qwen/Qwen3-VL-Reranker-2B",
        "mixedbread-ai/mxbai-rerank-large-v1",
    ):
        assert rerank_template(name, None) is None
