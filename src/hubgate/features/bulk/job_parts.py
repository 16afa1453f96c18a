"""`hubgate job show` and the like for a job on Ray, whose output is its only record."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hubgate.features.bulk.progress import summary
from hubgate.terminal.client import CommandFailed
from hubgate.terminal.printing import format_time, print_fields


def is_on_ray(place: str) -> bool:
    """Whether a place is the output of a job on Ray, not of one of this machine, nor the id of one."""
    return "://" in place or Path(place, "_job.json").is_file()


def show_parts(place: str) -> None:
    """Print a job on Ray and its progress.

    Raises:
        CommandFailed: pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise CommandFailed("Jobs on Ray need pyarrow, which is not installed. Install hubgate[bulk].")
    from hubgate.features.bulk.ray.tasks import find_prepared

    found = find_prepared(place)
    plan, count = found.plan, len(found.plan.splits)
    made = count - len(found.missing)
    print_fields(
        {
            "status": "done" if found.is_complete else "not complete",
            "parts": f"{made:,} of {count:,}",
            "created": format_time(plan.created_at),
            "input": plan.task.input,
            "output": plan.task.output,
            "endpoint": plan.task.endpoint,
            "model": plan.model["model"],
            "expected rows": f"{plan.rows:,}",
            **summary(found.done, None),
            **({"failed rows": f"{plan.task.output}/_failed.jsonl"} if found.done.failed else {}),
        }
    )


def refuse(place: str, verb: str) -> None:
    """Refuse what only works for jobs of this machine.

    Raises:
        CommandFailed: always.
    """
    ways = {
        "cancel": "press Ctrl-C where its command runs; finished parts are kept",
        "resume": "run its command `hubgate job run … --on …` again: it makes the missing parts",
    }
    raise CommandFailed(f"{place} belongs to a job on Ray. To {verb} it, {ways[verb]}.")
