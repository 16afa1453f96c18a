"""The console's messages: every key in every language, none unused, with the same parameters."""

from __future__ import annotations

import json
import re
from pathlib import Path

import icu
import pytest

import hubgate.web.console
from hubgate.domain.diagnosis import Outcome, Step
from hubgate.domain.endpoint import Precision, PrefixSource, Source, Task
from hubgate.domain.errors import Cause
from hubgate.domain.hub import DeploymentState, LicenseLimit
from hubgate.features import load
from hubgate.features.aliases.pages import AUDIT_VERBS as ALIAS_VERBS
from hubgate.features.bulk.batches.model import BatchStatus
from hubgate.features.bulk.pages import AUDIT_VERBS as JOB_VERBS
from hubgate.features.deployments.fields import Access
from hubgate.features.deployments.model import Misfit, Stage
from hubgate.features.deployments.pages import AUDIT_VERBS as DEPLOYMENT_VERBS
from hubgate.features.deployments.pages import VERBS
from hubgate.features.usage.pages import TABLES
from hubgate.features.usage.periods import RANGES
from hubgate.features.usage.views import CARDS, SERIES
from hubgate.service.states import Kind
from hubgate.web.console.models.chunking import STRATEGIES
from hubgate.web.console.models.form import CONTROLS, KINDS, PREFIXES, PROMPTS
from hubgate.web.console.models.hub_picker import WHYS
from hubgate.web.console.models.page import DONE
from hubgate.web.console.page_context import NAVIGATION, THEMES
from hubgate.web.console.playground.form import MORE_PARAMETERS, PARAMETERS, SAMPLES
from hubgate.web.console.settings import AUDIT_VERBS

PACKAGE = Path(hubgate.web.console.__file__).parent
FOLDERS = (PACKAGE, *(feature.folder for feature in load()))
CODES = ("en", "zh", "ja", "fa")
WITHOUT_HINT = {"requests_per_minute", "tokens_per_minute", "similarity"}
"""Fields of the model form without a hint."""
FAMILIES: dict[str, set[str]] = {
    "cause.": {name for cause in Cause for name in (cause.value, f"{cause}.remedy")},
    "config.": {"add", "change", "remove", "connection", "endpoint", "key"},
    "deployments.access.": {name for one in Access for name in (one.value, f"{one}.hint")},
    "deployments.act.": set(VERBS),
    "deployments.done.": set(VERBS),
    "deployments.misfit.": {misfit.value for misfit in Misfit},
    "deployments.stage.": {stage.value for stage in Stage},
    "deployments.state.": {state.value for state in DeploymentState},
    "deployments.verb.": set(VERBS),
    "delete.used.": {"key", "endpoint"},
    "done.": set(DONE),
    "field.": {*PREFIXES, *PROMPTS, *CONTROLS, *(f"{name}.hint" for name in set(CONTROLS) - WITHOUT_HINT)},
    "jobs.status.": {status.value for status in BatchStatus},
    "hub.license.": {limit.value for limit in LicenseLimit},
    "hub.why.": set(WHYS),
    "kind.": {name for kind in KINDS for name in (kind, f"{kind}.hint")},
    "nav.": {entry.name for entry in NAVIGATION} | {"deployments"},
    "play.": {name for one in (*PARAMETERS, *MORE_PARAMETERS) for name in (one.name, f"{one.name}.hint")},
    "play.lead.": {"embed", "sparse", "rank", "text", "chat"},
    "play.sample.": {*map(str, range(1, SAMPLES + 1)), "query", "text", "chat"},
    "precision.": {precision.value for precision in Precision},
    "outcome.": {outcome.value for outcome in Outcome},
    "state.": {kind.value for kind in Kind},
    "prefix.": {source.value for source in PrefixSource},
    "step.": {step.value for step in Step},
    "strategy.": set(STRATEGIES),
    "task.": {task.value for task in Task},
    "theme.": set(THEMES),
    "usage.": {name for card in (*CARDS, "causes") for name in (card, f"{card}.hint")} | {"endpoint", "key"},
    "usage.by.": {"endpoint", "key"},
    "usage.csv.": set(TABLES),
    "usage.range.": set(RANGES),
    "usage.series.": set(SERIES),
    "where.": {name for source in Source for name in (source.value, f"{source}.hint")},
    "audit.": {*AUDIT_VERBS, *ALIAS_VERBS, *DEPLOYMENT_VERBS, *JOB_VERBS},
}
"""Computed keys: a prefix, and all possible suffixes."""


def words(code: str) -> dict[str, str]:
    """All files of a language; a key that stands twice in one of them, or in two, fails."""

    def once(pairs: list[tuple[str, str]]) -> dict[str, str]:
        assert len(dict(pairs)) == len(pairs), f"{code}: a key stands twice"
        return dict(pairs)

    files = sorted(path for folder in FOLDERS for path in (folder / "locales").glob(f"*{code}.json"))
    read = [json.loads(path.read_text("utf-8"), object_pairs_hook=once) for path in files]
    return once([pair for file in read for pair in file.items()])


def used() -> set[str]:
    """The keys that templates and code name, whole or by a family."""
    sources = [path for kind in ("*.html", "*.py") for folder in FOLDERS for path in folder.rglob(kind)]
    named = {
        key
        for path in sources
        for key in re.findall(r"""["']([a-z][a-z_0-9]*(?:\.[a-z_0-9]+)*)["']""", path.read_text("utf-8"))
    }
    return named | {prefix + rest for prefix, all_of_it in FAMILIES.items() for rest in all_of_it}


def values_of(pattern: str) -> set[str]:
    """The names of the values that a pattern takes."""
    return set(icu.MessageFormat(pattern, icu.Locale("en")).getFormatNames())


@pytest.mark.parametrize("code", CODES[1:])
def test_every_language_has_exactly_the_keys_of_english(code: str) -> None:
    assert words(code).keys() == words("en").keys()


@pytest.mark.parametrize("code", CODES)
def test_no_message_is_empty_or_padded(code: str) -> None:
    assert [key for key, text in words(code).items() if not text or text != text.strip()] == []


@pytest.mark.parametrize("code", CODES[1:])
def test_every_key_has_the_same_parameters_in_every_language(code: str) -> None:
    english, other = words("en"), words(code)
    assert {key for key in english if values_of(english[key]) != values_of(other[key])} == set()


def test_every_used_key_exists() -> None:
    english = words("en")
    literal = {
        key
        for folder in FOLDERS
        for path in folder.rglob("*.html")
        for key in re.findall(r"""\bt\(\s*["']([^"']+)["']\s*[,)]""", path.read_text("utf-8"))
    } | {
        key
        for folder in FOLDERS
        for path in folder.rglob("*.py")
        for key in re.findall(r"""\btranslate\(\s*["']([^"']+)["']""", path.read_text("utf-8"))
    }
    families = {prefix + rest for prefix, all_of_it in FAMILIES.items() for rest in all_of_it}
    assert (literal | families) - english.keys() == set()


def test_every_key_is_used() -> None:
    fields = {f"field.{name}" for name in re.findall(r"""["']([a-z_]+)["']""", _source("models/form.py"))}
    assert words("en").keys() - used() - fields == set()


@pytest.mark.parametrize("code", CODES[1:])
def test_almost_no_message_is_left_in_english(code: str) -> None:
    english, other = words("en"), words(code)
    names = re.compile(
        r"^(usage\.csv$|usage\.series\.p\d\d$|where\.(router|dedicated)$|kind\.(llm|embedding|rerank)$|separators\.markdown$|deployments\.gigabytes$)"
    )
    same = {key for key in english if english[key] == other[key] and not names.match(key)}
    assert same == set()


def _source(name: str) -> str:
    return (PACKAGE / name).read_text("utf-8")
