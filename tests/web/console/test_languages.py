"""Plural forms, numbers, dates and the choice of a language."""

from __future__ import annotations

import pytest

from hubgate.web.console.languages import choose, languages

NOON = 1_793_016_000.0
"""2026-10-26 12:00 UTC, which is 4 Aban 1405."""


@pytest.mark.parametrize(
    ("code", "one", "many"),
    [
        ("en", "1 model", "1,234 models"),
        ("zh", "共 1 个模型", "共 1,234 个模型"),
        ("ja", "モデル 1 件", "モデル 1,234 件"),
        ("fa", "۱ مدل", "۱٬۲۳۴ مدل"),
    ],
)
def test_counts_have_the_plural_and_the_digits_of_the_language(code: str, one: str, many: str) -> None:
    language = languages()[code]
    assert language.translate("models.count", count=1) == one
    assert language.translate("models.count", count=1234) == many


def test_persian_dates_use_the_persian_calendar_and_others_the_gregorian() -> None:
    shown = {code: language.date(NOON) for code, language in languages().items()}
    assert shown == {"en": "Oct 26, 2026", "zh": "2026年10月26日", "ja": "2026/10/26", "fa": "۴ آبان ۱۴۰۵"}
    assert languages()["fa"].moment(NOON).startswith("۴ آبان ۱۴۰۵")


def test_numbers_and_percentages_are_formatted_for_the_language() -> None:
    english, persian = languages()["en"], languages()["fa"]
    assert (english.number(1234.5, digits=1), persian.number(1234.5, digits=1)) == ("1,234.5", "۱٬۲۳۴٫۵")
    assert (english.number(0.5), english.percent(0.256)) == ("0", "26%")
    assert persian.percent(0.25) == "۲۵٪"


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1 KiB"),
        (1_600_000, "1.5 MiB"),
        (10 << 30, "10 GiB"),
        (5 << 40, "5,120 GiB"),
    ],
)
def test_sizes_have_a_suitable_unit(count: int, told: str) -> None:
    assert languages()["en"].size(count) == told.replace(" ", "\u00a0")
    assert languages()["fa"].size(1_600_000) == "۱٫۵\u00a0MiB"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.2, "now"),
        (7, "7 seconds ago"),
        (61, "1 minute ago"),
        (7300, "2 hours ago"),
        (200_000, "2 days ago"),
        (-90_000, "in 1 day"),
    ],
)
def test_relative_times_are_rounded(seconds: float, told: str) -> None:
    assert languages()["en"].ago(seconds) == told


def test_names_in_right_to_left_sentences_are_isolated() -> None:
    assert "\u2068e5-small\u2069" in languages()["fa"].translate("done.saved", name="e5-small")
    assert languages()["en"].translate("done.saved", name="e5-small") == "e5-small is saved."


@pytest.mark.parametrize(
    ("chosen", "accepted", "code"),
    [
        (None, "fa-IR,fa;q=0.9,en;q=0.8", "fa"),
        (None, "de-DE, ja;q=0.5", "ja"),
        (None, "zh-TW", "zh"),
        (None, "de", "en"),
        (None, "", "en"),
        ("ja", "fa-IR", "ja"),
        ("tlh", "fa-IR", "fa"),
    ],
)
def test_the_chosen_language_comes_before_the_browsers_and_english_last(
    chosen: str | None, accepted: str, code: str
) -> None:
    assert choose(chosen, accepted).code == code


def test_lists_use_the_comma_of_the_language() -> None:
    told = [one.translate("play.chunks.size", strategy="A", words="B") for one in languages().values()]
    assert told == ["A, B", "A，B", "A、B", "\u2068A\u2069، \u2068B\u2069"]
