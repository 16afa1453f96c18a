"""What the metadata of a model card says before anybody chooses the model: license, languages, benchmark scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hubgate.domain.hub import BenchmarkScore, LicenseLimit, ModelCard
from hubgate.upstreams.json_values import dict_of, field_of, list_of, number_of, text_of

_NON_COMMERCIAL = ("cc-by-nc", "fair-noncommercial", "apple-amlr", "intel-research", "h-research")
_PERMISSIVE = frozenset(
    {
        *("0bsd", "afl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0"),
        *("cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc0-1.0", "isc", "mit", "ms-pl", "ncsa"),
        *("pddl", "postgresql", "unlicense", "wtfpl", "zlib"),
    }
)
_MAIN_METRICS: Mapping[str, Sequence[str]] = {
    "BitextMining": ("f1",),
    "Classification": ("accuracy",),
    "Clustering": ("v_measure",),
    "MultilabelClassification": ("accuracy",),
    "PairClassification": ("max_ap", "cos_sim_ap", "cosine_ap"),
    "Reranking": ("map",),
    "Retrieval": ("ndcg_at_10",),
    "STS": ("cos_sim_spearman", "cosine_spearman"),
    "Summarization": ("cos_sim_spearman", "cosine_spearman"),
}
"""What MTEB ranks by, for each type of task. Newer cards repeat it as `main_score`."""
_MAX_LANGUAGES = 300


def with_metadata(card: ModelCard, entry: Any) -> ModelCard:
    """The card with what the `cardData` and the `model-index` of a reply say."""
    data = dict_of(entry, "cardData")
    license_id = card.license or text_of(data, "license")
    index = field_of(entry, "model-index") or field_of(data, "model-index")
    return replace(
        card,
        license=license_id,
        license_name=text_of(data, "license_name"),
        license_limit=limit_of(license_id),
        languages=_languages(data.get("language")),
        scores=_scores(index),
    )


def limit_of(license_id: str | None) -> LicenseLimit | None:
    """What a license with the Hub's name for it restricts; `None` if it is known to be permissive."""
    if license_id is None:
        return LicenseLimit.UNKNOWN
    if license_id.startswith(_NON_COMMERCIAL):
        return LicenseLimit.NON_COMMERCIAL
    return None if license_id in _PERMISSIVE else LicenseLimit.OWN_TERMS


def _languages(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(name for name in names if isinstance(name, str))[:_MAX_LANGUAGES]


def _scores(index: Any) -> tuple[BenchmarkScore, ...]:
    """The mean of MTEB's main metric for each type of task, over the datasets that the card lists."""
    values: dict[str, list[float]] = {}
    for task, value in _results(index):
        values.setdefault(task, []).append(value)
    return tuple(
        BenchmarkScore(task=task, score=round(sum(found) / len(found), 2), datasets=len(found))
        for task, found in sorted(values.items())
    )


def _results(index: Any) -> Iterator[tuple[str, float]]:
    """The type of task and the main metric of each result on a dataset of MTEB."""
    for model in index if isinstance(index, list) else []:
        for result in list_of(model, "results"):
            task, dataset = text_of(field_of(result, "task"), "type"), field_of(result, "dataset")
            if task is None or task not in _MAIN_METRICS or not _is_mteb(dataset):
                continue
            metrics = {text_of(one, "type"): number_of(one, "value") for one in list_of(result, "metrics")}
            found = (metrics.get(name) for name in ("main_score", *_MAIN_METRICS[task]))
            value = next((value for value in found if value is not None), None)
            if value is not None:
                yield task, value


def _is_mteb(dataset: Any) -> bool:
    return (text_of(dataset, "type") or "").startswith("mteb/") or (
        text_of(dataset, "name") or ""
    ).startswith("MTEB ")
