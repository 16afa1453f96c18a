"""One rate limit for three gateways: what a model's server receives while gateways or PostgreSQL fail.

    PYTHONPATH=tests:tests/support .venv/bin/python benchmarks/shared.py rate    # nothing happens
    PYTHONPATH=tests:tests/support .venv/bin/python benchmarks/shared.py kill-database

Three `hubgate serve` processes, a real PostgreSQL from a wheel, and an upstream that records when
requests arrive. Six callers at each gateway always wait. An endpoint is changed twice a second meanwhile.
"""

from __future__ import annotations

import argparse

from servers.sharing import CAREFUL, GATEWAYS, SCENARIOS, Outcome, observe
from support.processes import end_on_sigterm


def report(outcome: Outcome) -> None:
    """Print what was seen."""
    gap, since = outcome.longest_gap
    print(f"most in any 60 s      {outcome.most} of {outcome.rate}")
    if outcome.seconds > CAREFUL + 10:
        print(f"used after {CAREFUL:g} s     {outcome.used:.1%}")
    print(f"answered by gateways  {outcome.answered}")
    print(f"failed calls          {outcome.failed or 0}")
    print(f"in the usage report   {outcome.counted} of {sum(outcome.answered)}")
    print(f"longest gap           {gap:.1f} s, at {since:.0f} s")
    changes = outcome.changes
    print(
        f"changes               {changes.tried}, failed {dict(changes.failed) or 0}, "
        f"{'all answered ones are kept' if outcome.changes_are_kept else 'LOST'}"
    )
    print(f"callers               {outcome.callers.cpu_share:.0%} of a core")
    tens = [outcome.between(at, at + 10) for at in range(0, round(outcome.seconds), 10)]
    print(f"in each 10 s          {tens}")
    for number, output in enumerate(outcome.output):
        for line in output.splitlines():
            if "shared" in line or "alone" in line:
                print(f"  gateway {number}: {line[:150]}")


def main() -> None:
    """Run one scenario."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--rate", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=130.0)
    parser.add_argument("--callers", type=int, help="at each gateway")
    options = parser.parse_args()
    end_on_sigterm()
    scenario = SCENARIOS[options.scenario]
    if options.callers:
        scenario = scenario._replace(callers=(options.callers,) * GATEWAYS)
    outcome = observe(scenario, rate=options.rate, seconds=options.seconds)
    print(f"{options.scenario}, {options.seconds:g} s")
    report(outcome)


if __name__ == "__main__":
    main()
