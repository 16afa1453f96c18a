"""`hubgate job run --on`: what is refused before a cluster is needed. `tests/on_ray/test_ray_jobs.py` has the rest."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from commands import Command

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in.parquet", "out.parquet", "--tasks", "2"), "--local-on-workers need --on."),
        (("in.parquet", "out.parquet", "--local-on-workers"), "--local-on-workers need --on."),
        (("s3://a/*.parquet", "out.parquet"), "run on Ray: `hubgate job run … --on ray`."),
        (("in.parquet", "s3://b/out"), "run on Ray: `hubgate job run … --on ray`."),
        (("in.parquet", "s3://b/out.parquet", "--on", "ray"), "the output is a folder of Parquet files"),
        (("in.parquet", "s3://b/out", "--on", "ray", "--keep", "tokens"), "has its own column [tokens]"),
        (("in.parquet", "s3://b/out", "--on", "ray", "--dry-run"), "--dry-run does not work with --on"),
    ],
)
def test_what_does_not_fit_is_refused(hubgate: Command, arguments: tuple[str, ...], message: str) -> None:
    ran = hubgate("job", "run", *arguments, "--endpoint", "words")
    assert ran.status == 1
    assert message in ran.err


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed: `make test-ray` ran here")
def test_without_ray_the_error_says_what_to_install(hubgate: Command) -> None:
    ran = hubgate("job", "run", "in.parquet", "s3://b/out", "--endpoint", "words", "--on", "ray")
    assert ran.status == 1
    assert "Jobs on Ray need ray, which is not installed. Install hubgate[ray]" in ran.err
