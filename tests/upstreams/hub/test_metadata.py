"""License, languages and scores come from a model's card, and nothing is made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from lookalikes.hub_api import HubModels

from hubgate.domain.hub import BenchmarkScore, LicenseLimit, ModelCard, ModelSearch
from hubgate.settings import Settings
from hubgate.upstreams.hub.client import open_hub
from hubgate.upstreams.hub.metadata import limit_of


def result(task: str, name: str, *metrics: tuple[str, Any], kind: str = "mteb/some") -> dict[str, Any]:
    return {
        "task": {"type": task},
        "dataset": {"type": kind, "name": name},
        "metrics": [{"type": metric, "value": value} for metric, value in metrics],
    }


# Of the cards of jinaai/jina-embeddings-v5-text-small and Snowflake/snowflake-arctic-embed-m: license, language, and
# the first result. The other results are made up.
CARDS: dict[str, dict[str, Any]] = {
    "jinaai/jina-embeddings-v5-text-small": {
        "tags": ["license:cc-by-nc-4.0"],
        "cardData": {"license": "cc-by-nc-4.0", "language": ["multilingual"]},
    },
    "Snowflake/snowflake-arctic-embed-m": {
        "tags": ["license:apache-2.0"],
        "cardData": {"license": "apache-2.0", "language": "en"},
        "model-index": [
            {
                "name": "snowflake-arctic-embed-m",
                "results": [
                    result(
                        "Classification",
                        "MTEB AmazonCounterfactualClassification (en)",
                        ("accuracy", 76.80597014925374),
                        ("ap", 39.31198155789558),
                    ),
                    result("Retrieval", "MTEB ArguAna", ("map_at_10", 1), ("ndcg_at_10", 50)),
                    result("Retrieval", "MTEB NQ", ("ndcg_at_10", 1), ("main_score", 61), kind="mteb/nq"),
                    result("Retrieval", "MTEB FiQA", ("ndcg_at_10", "high")),
                    result("Retrieval", "Own", ("ndcg_at_10", 99), kind="own/data"),
                    result("Haiku", "MTEB Haiku", ("main_score", 5)),
                ],
            }
        ],
    },
    "org/own-terms": {"tags": ["license:other"], "cardData": {"license_name": "tongyi-qianwen"}},
    "org/odd": {"tags": [], "cardData": {"language": [None, 3, "en"]}, "model-index": {"results": []}},
}


async def card(name: str) -> ModelCard:
    site = HubModels({name: {} for name in CARDS}, CARDS)
    with site.running():
        hub = open_hub(replace(Settings.from_env({}), hf_endpoint=site.url))
        try:
            return await hub.model(name, None)
        finally:
            await hub.close()


async def test_non_commercial_license_and_languages() -> None:
    jina = await card("jinaai/jina-embeddings-v5-text-small")
    assert (jina.license, jina.license_limit) == ("cc-by-nc-4.0", LicenseLimit.NON_COMMERCIAL)
    assert (jina.languages, jina.scores) == (("multilingual",), ())


async def test_scores_are_means_of_the_main_metric_over_the_cards_datasets() -> None:
    arctic = await card("Snowflake/snowflake-arctic-embed-m")
    assert (arctic.license_limit, arctic.languages) == (None, ("en",))
    assert arctic.scores == (
        BenchmarkScore(task="Classification", score=76.81, datasets=1),
        BenchmarkScore(task="Retrieval", score=55.5, datasets=2),
    )


async def test_own_license_has_its_own_name() -> None:
    own = await card("org/own-terms")
    assert (own.license, own.license_name, own.license_limit) == (
        "other",
        "tongyi-qianwen",
        LicenseLimit.OWN_TERMS,
    )


async def test_odd_metadata_counts_as_missing() -> None:
    odd = await card("org/odd")
    assert (odd.license_limit, odd.languages, odd.scores) == (LicenseLimit.UNKNOWN, ("en",), ())


@pytest.mark.parametrize(
    ("license_id", "limit"),
    [
        ("mit", None),
        ("apache-2.0", None),
        ("cc-by-4.0", None),
        ("cc-by-nc-sa-4.0", LicenseLimit.NON_COMMERCIAL),
        ("cc-by-sa-4.0", LicenseLimit.OWN_TERMS),
        ("gemma", LicenseLimit.OWN_TERMS),
        ("agpl-3.0", LicenseLimit.OWN_TERMS),
        (None, LicenseLimit.UNKNOWN),
    ],
)
def test_limit_follows_from_the_license(license_id: str | None, limit: LicenseLimit | None) -> None:
    assert limit_of(license_id) is limit


async def test_search_returns_licenses_without_requesting_whole_cards(hub_site: Any) -> None:
    hub = open_hub(replace(Settings.from_env({}), hf_endpoint=hub_site.url))
    found = await hub.search(ModelSearch(text="bge"), None)
    await hub.close()
    assert [(one.license, one.license_limit) for one in found] == [("apache-2.0", None)]
    requested = {name for seen in hub_site.asked for name in seen.query["expand[]"]}
    assert not {"cardData", "model-index", "siblings"} & requested
