"""The chunking preview, sparse vectors, and tests of endpoints that run while their page is open."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hubgate.core.chunking import Chunk, chunk
from hubgate.domain.calls import SparseEmbed, SparseVectors
from hubgate.domain.chunking import ChunkingSettings
from hubgate.domain.diagnosis import Finding, Outcome, Step
from hubgate.domain.errors import Cause, InvalidEndpoint
from hubgate.service.shared_values import SharedValues
from hubgate.web.console.models.chunking import split_at_chunks
from hubgate.web.console.models.trials import MAX_TRIALS, Trial, Trials
from hubgate.web.console.playground.views import Weighed, view_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TEXT = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen."


def test_segments_join_to_the_text_and_contain_each_chunk_whole() -> None:
    chunks = chunk(TEXT, ChunkingSettings(strategy="word", max_chunk_size=10, overlap=3))
    pieces = split_at_chunks(TEXT, chunks)
    assert "".join(piece.text for piece in pieces) == TEXT
    assert len(chunks) == 2
    for number, one in enumerate(chunks, 1):
        assert "".join(piece.text for piece in pieces if number in piece.chunks) == TEXT[one.start : one.end]
    assert [piece.chunks for piece in pieces] == [(1,), (1, 2), (2,)]
    assert [piece.begins for piece in pieces] == [(1,), (2,), ()]


def test_empty_text_has_no_segments() -> None:
    assert split_at_chunks("", chunk("", ChunkingSettings(strategy="none"))) == []


class _Read(list[Chunk]):
    """Chunks that count how often they are read."""

    looks = 0

    def __iter__(self) -> Iterator[Chunk]:
        self.looks += len(self)
        return super().__iter__()

    def __getitem__(self, place: Any) -> Any:
        self.looks += 1
        return super().__getitem__(place)


def test_splitting_at_many_chunks_is_not_quadratic() -> None:
    text = "a " * 10_000
    chunks = _Read(chunk(text, ChunkingSettings(strategy="word", max_chunk_size=10, overlap=5)))
    assert len(chunks) > 1_000
    split_at_chunks(text, chunks)
    assert chunks.looks < 10 * len(chunks)


async def _found(*outcomes: Outcome) -> AsyncIterator[Finding]:
    for step, outcome in zip(Step, outcomes, strict=False):
        yield Finding(step=step, outcome=outcome)


async def _refused() -> AsyncIterator[Finding]:
    none: tuple[Finding, ...] = ()
    for finding in none:
        yield finding
    raise InvalidEndpoint("No connection is named [x].")


async def _over(trial: Trial) -> Trial:
    while not trial.over:  # noqa: ASYNC110 - its task is private
        await asyncio.sleep(0)
    return trial


async def test_test_run_reports_finished_and_pending_steps() -> None:
    trial = await Trials(SharedValues()).begin(_found(Outcome.PASSED, Outcome.SKIPPED))
    assert (trial.over, trial.passed) == (False, False)
    await _over(trial)
    assert trial.passed
    assert trial.waiting == list(Step)[2:]
    assert trial.fault is None


async def test_failed_test_run_reports_the_step() -> None:
    trial = await _over(await Trials(SharedValues()).begin(_found(Outcome.PASSED, Outcome.FAILED)))
    assert not trial.passed
    assert trial.fault
    assert trial.fault.step is Step.DNS


async def test_invalid_settings_fail_at_the_first_step() -> None:
    trial = await _over(await Trials(SharedValues()).begin(_refused()))
    assert trial.fault
    assert (trial.fault.step, trial.fault.cause) == (Step.ADDRESS, Cause.INVALID_ENDPOINT)


async def test_number_of_kept_test_runs_is_bounded() -> None:
    trials = Trials(SharedValues())
    began = [await trials.begin(_found(Outcome.PASSED)) for _ in range(MAX_TRIALS + 1)]
    assert await trials.find(began[0].id) is None
    assert await trials.find(began[-1].id) is began[-1]
    for trial in began[1:]:
        await _over(trial)


async def test_words_without_weights_have_the_shortest_bars() -> None:
    call, answer = SparseEmbed(texts=["a"]), SparseVectors(items=[b'{"word":0.0}'])
    view = await view_of(call, answer, 0.1)
    assert isinstance(view, Weighed)
    assert [(bar.text, bar.share) for bar in view.texts[0][2]] == [("word", 0.0)]
