"""`hubgate compare`: what another model changes for a search."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hubgate.service.inference.comparison import Vectors, compare

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Command
    from running_gateway import RunningGateway

    from hubgate.settings import Settings

WORDS = ["harbour", "gate", "dawn", "bread", "river", "stone", "lamp", "winter"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    lines = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS[:2]]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


def test_same_model_changes_nothing(hubgate: Command, gateway: RunningGateway, texts: Path) -> None:
    gateway.add("old", dimensions=32)
    gateway.add("new", dimensions=32)
    ended = hubgate("compare", "old", "new", "--texts", str(texts))
    assert (ended.status, ended.err) == (0, "")
    assert "first result stays first  100%" in ended.out
    assert "Both give the same vectors. Nothing has to be embedded again." in ended.out


def test_fewer_dimensions_change_the_neighbours(
    hubgate: Command, gateway: RunningGateway, texts: Path, tmp_path: Path
) -> None:
    gateway.add("old", dimensions=64)
    gateway.add("new", dimensions=4)
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"text": "harbour gate"}\n{"text": "winter lamp stone"}\n')
    command = ("compare", "old", "new", "--texts", str(texts), "--queries", str(queries), "--limit", "100")
    ended = hubgate(*command, "--price-per-million-tokens", "1000")
    assert (ended.status, ended.err) == (0, "")
    fields = dict(line.strip().split("  ", 1) for line in ended.out.splitlines() if "  " in line.strip())
    assert (fields["texts"], fields["queries"]) == ("100", "2")
    assert fields["cost of embedding the texts"] == "0.3000"
    assert float(fields["the same among the first 10"].split()[0]) < 10
    assert "cosine" not in ended.out
    assert "Embed all texts with the new endpoint" in ended.out
    assert "\nharbour gate\n  old 1  " in ended.out


def test_neighbours_and_ranks_are_counted() -> None:
    old = np.array([[1, 0], [0.9, 0.1], [0.5, 0.5], [0, 1]], np.float32)
    new = np.array([[1, 0], [0, 1], [0.6, 0.4], [0.9, 0.1]], np.float32)
    queries = [np.array([1, 0], np.float32).tobytes()]

    def of(vectors: np.ndarray) -> Vectors:
        return Vectors([vector.tobytes() for vector in vectors], queries, [])

    (ranking,) = compare(of(old), of(new), neighbours=3).rankings
    assert (ranking.old, ranking.new) == ([0, 1, 2], [0, 3, 2])
    assert (ranking.shared, ranking.first_now) == (2, 1)
    of_texts = compare(
        Vectors([v.tobytes() for v in old], [], [0]), Vectors([v.tobytes() for v in new], [], [0])
    )
    assert of_texts.rankings[0].old == [1, 2, 3]  # without the text itself
    assert of_texts.rankings[0].first_now == 3


def test_bad_arguments_are_explained(hubgate: Command, gateway: RunningGateway, tmp_path: Path) -> None:
    gateway.add("old", dimensions=4)
    one = tmp_path / "one.jsonl"
    one.write_text('{"text": "alone"}\n')
    assert "fewer than two texts" in hubgate("compare", "old", "old", "--texts", str(one)).err
    one.write_text('{"text": "alone"}\n{"text": "together"}\n')
    assert "[missing]" in hubgate("compare", "old", "missing", "--texts", str(one)).err
    field = hubgate("compare", "old", "old", "--texts", str(one), "--text-field", "body")
    assert "has a field [body]" in field.err


def test_no_home_is_created(hubgate: Command, texts: Path, settings: Settings) -> None:
    assert "There is no gateway" in hubgate("compare", "old", "new", "--texts", str(texts)).err
    assert not settings.home.exists()


def test_one_endpoint_is_compared_with_its_cut_vectors(
    hubgate: Command, gateway: RunningGateway, texts: Path
) -> None:
    gateway.add("words", dimensions=64)
    command = ("compare", "words", "words", "--texts", str(texts), "--dimensions")
    ended = hubgate(*command, "8")
    assert (ended.status, ended.err) == (0, "")
    assert [line.split()[2] for line in ended.out.splitlines()[1:3]] == ["64", "8"]
    assert "Embed all texts with the new endpoint" in ended.out
    assert "first result stays first  100%" in hubgate(*command, "64").out
    assert "have fewer than 65 dimensions" in hubgate(*command, "65").err


def test_the_local_model_is_compared_with_its_cut_vectors(
    hubgate: Command, local_gateway: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few dimensions, all-MiniLM-L6-v2 still finds what a question is about, but orders the rest differently."""
    monkeypatch.setenv("HUBGATE_HOME", str(local_gateway.settings.home))
    subjects = ("A harbour", "The bakery", "An old bridge", "The school", "A hospital", "The library")
    facts = ("opens at dawn", "is closed in winter", "was built by monks", "needs a new roof")
    texts, queries = tmp_path / "texts.jsonl", tmp_path / "queries.jsonl"
    texts.write_text("".join(f'{{"text": "{one} {fact}."}}\n' for one in subjects for fact in facts))
    queries.write_text("".join(f'{{"text": "When is {one.lower()} shut?"}}\n' for one in subjects))
    name = "all-minilm-l6-v2"
    command = ("compare", name, name, "--texts", str(texts), "--queries", str(queries), "--dimensions")
    ended = hubgate(*command, "32")
    assert (ended.status, ended.err) == (0, "")
    assert [line.split()[2] for line in ended.out.splitlines()[1:3]] == ["384", "32"]
    found = re.search(r"the same among the first 10\s+([\d.]+)", ended.out)
    assert found is not None, ended.out
    assert 4 < float(found[1]) < 10
