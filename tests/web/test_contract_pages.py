"""The contract pages are true as far as a name can tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hubgate.web

TESTS = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["openai", "huggingface"])
def test_every_test_that_a_contract_page_names_exists_and_every_claim_that_is_tested_stands_on_it(
    name: str,
) -> None:
    page = (Path(hubgate.web.__file__).parent / name / "CONTRACT.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    of_the_face = "".join(path.read_text("utf-8") for path in (TESTS / "web" / name).glob("test_*.py"))
    of_clients = "".join(path.read_text("utf-8") for path in (TESTS / "clients").glob("test_*.py"))
    assert named <= set(re.findall(r"def (test_\w+)\(", of_the_face + of_clients))
    assert set(re.findall(r"def (test_\w+)\(", of_the_face)) - named == UNNAMED[name]


# What holds of every face, and is no claim of one.
UNNAMED = {
    "openai": {
        "test_an_unknown_path_is_a_404_in_openais_shape",
        "test_log_and_metrics_say_endpoint_texts_and_tokens",
        "test_the_caller_is_told_to_the_floors_below_by_its_keys_id",
    },
    "huggingface": {
        "test_an_unknown_path_is_a_404_in_teis_shape",
        "test_an_unknown_endpoint_is_not_found",
        "test_another_method_is_a_405_that_says_which_to_use",
        "test_f32_vectors_become_numbers",
        "test_log_and_metrics_say_endpoint_texts_and_tokens",
    },
}
