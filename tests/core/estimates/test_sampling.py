"""Totals from a sample: exact if all is sampled, else within the stated error as often as it says."""

from __future__ import annotations

import random

import pytest

from hubgate.core.estimates.sampling import Sample, SizeClasses, Total


def sampled(rows: list[tuple[int, float, float]], **limits: int) -> Sample:
    """A sample of rows, each with its size and two measures."""
    classes = SizeClasses()
    for size, _, _ in rows:
        classes.add(size)
    sample = classes.sample(**limits)
    for size, grows, share in rows:
        if sample.takes(size):
            sample.add(size, (grows, share))
    return sample


def test_totals_are_exact_if_all_texts_are_sampled() -> None:
    texts = [(size, float(size // 4), float(size > 60)) for size in range(1, 101)]
    sample = sampled(texts, texts=100)
    assert sample.size == 100
    assert sample.size_total(0).value == pytest.approx(sum(text[1] for text in texts))
    assert sample.share_total(1) == Total(40.0, 0.0)
    assert sample.size_total(0).error == 0.0


def test_a_measure_that_is_the_same_for_each_text_has_an_exact_total() -> None:
    chosen = random.Random(4)
    total = sampled([(chosen.randint(1, 5000), 1.0, 0.0) for _ in range(5000)], texts=300).size_total(0)
    assert total.value == pytest.approx(5000)
    assert total.error == pytest.approx(0, abs=1e-3)


def test_exact_totals_are_within_the_error_in_about_95_of_100_cases() -> None:
    chosen = random.Random(3)
    near = {"grows": 0, "share": 0}
    for _ in range(100):
        texts = []
        for _ in range(2000):
            size = int(chosen.lognormvariate(5.5, 1.0)) + 1
            tokens = size * chosen.uniform(0.15, 0.4) + 2
            texts.append((size, min(tokens, 128.0), float(tokens > 128)))
        sample = sampled(texts, texts=300)
        for name, total, column in (
            ("grows", sample.size_total(0), 1),
            ("share", sample.share_total(1), 2),
        ):
            near[name] += abs(total.value - sum(text[column] for text in texts)) <= total.error
    assert near["grows"] >= 88
    assert near["share"] >= 88


def test_few_large_texts_are_sampled_among_many_small_ones() -> None:
    texts = [(100, 25.0, 0.0)] * 50_000 + [(3_000_000, 512.0, 1.0)] * 5
    sample = sampled(texts, texts=500, size=20_000_000)
    assert sample.size <= 520
    assert sample.size_total(0).value == pytest.approx(50_000 * 25 + 5 * 512, rel=0.01)
    assert sample.share_total(1).value + sample.share_total(1).error >= 5


def test_none_in_the_sample_is_not_certain_to_be_none_at_all() -> None:
    found = sampled([(50, 10.0, 0.0)] * 100_000, texts=1000).share_total(1)
    assert found.value == 0
    assert 100 < found.error < 1000


def test_large_texts_are_sampled_within_the_bytes() -> None:
    assert sampled([(1_000_000, 1.0, 0.0)] * 100, texts=2000, size=8_000_000).size <= 8
