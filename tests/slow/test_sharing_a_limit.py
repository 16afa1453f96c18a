"""What a model's server receives from three gateways, whatever happens to them or to PostgreSQL.

Seven rows run at the same time; all together take about five minutes.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from servers.sharing import LOWERED_FROM, LOWERED_TO, SCENARIOS, Outcome, observe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.timeout(900)

RATE = 3000
SECONDS = 95.0
AT_ONCE = 7


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Mapping[str, Future[Outcome]]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            name: pool.submit(observe, scenario, rate=RATE, seconds=SECONDS)
            for name, scenario in SCENARIOS.items()
        }


@pytest.mark.parametrize("name", SCENARIOS)
def test_limit_holds_and_nothing_is_lost(name: str, outcomes: Mapping[str, Future[Outcome]]) -> None:
    scenario, outcome = SCENARIOS[name], outcomes[name].result()
    gap, since = outcome.longest_gap
    print(
        f"{name}: {outcome.most} in the fullest minute, then {outcome.used:.1%} used, by gateways {outcome.answered}, "
        f"longest gap {gap:.1f} s at {since:.0f} s, callers {outcome.callers.cpu_share:.0%} of a core",
        flush=True,
    )
    assert RATE / 10 < outcome.most <= RATE * scenario.excess
    assert outcome.between(LOWERED_FROM, LOWERED_TO) <= RATE * scenario.lowered * scenario.excess
    assert {number for number, _ in outcome.callers.failed} <= ({0} if scenario.is_fatal else set())
    assert outcome.changes_are_kept
    if not scenario.is_fatal:  # a gateway that is killed loses up to five seconds of counts
        assert outcome.counted == sum(outcome.answered)
    causes = {"503 store_failed"} if scenario.fails_changes else set()
    assert scenario.is_fatal or set(outcome.changes.failed) <= causes
