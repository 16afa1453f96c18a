"""Every test of a face is named in its contract page, and every named test exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hubgate.web

TESTS = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["openai", "responses", "cohere", "huggingface"])
def test_a_contract_page_names_exactly_the_tests_of_its_face(
    name: str,
) -> None:
    page = (Path(hubgate.web.__file__).parent / name / "CONTRACT.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    of_the_face = "".join(path.read_text("utf-8") for path in (TESTS / "web" / name).glob("test_*.py"))
    of_all = "".join(path.read_text("utf-8") for path in TESTS.rglob("test_*.py"))
    assert named <= set(re.findall(r"def (test_\w+)\(", of_all))
    assert set(re.findall(r"def (test_\w+)\(", of_the_face)) - named == UNNAMED[name]


# Tests of behaviour that all faces share.
UNNAMED: dict[str, set[str]] = {
    "responses": set(),
    "openai": {
        "test_an_unknown_path_is_a_404_in_openais_shape",
        "test_log_and_metrics_have_endpoint_texts_and_tokens",
        "test_the_key_id_identifies_the_caller_to_the_service",
    },
    "cohere": {"test_log_and_metrics_have_the_face"},
    "huggingface": {
        "test_an_unknown_path_is_a_404_in_teis_shape",
        "test_an_unknown_endpoint_is_not_found",
        "test_another_method_is_a_405_with_the_allowed_methods",
        "test_f32_vectors_become_numbers",
        "test_log_and_metrics_have_endpoint_texts_and_tokens",
    },
}
