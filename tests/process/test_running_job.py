"""A running job: its lock, signals and shutdown."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from gateway_process import HUBGATE, Home
from lookalikes import lookalike

from hubgate.features.bulk.folder import JobFolder, Status

if TYPE_CHECKING:
    from pathlib import Path

    from lookalikes import LookAlike

STOPPED = (
    "hubgate: The job was stopped. To continue, run the same command again, or `hubgate job resume` "
    "with its output.\n"
)
ROWS = 300
ANSWERED = 3
"""Requests that the server answers before it stops, so that a job cannot end before its test goes on."""
PATIENT = ("--timeout", "3600")


def wait_for_rows(job: JobFolder, running: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Wait until the job has saved its first rows."""
    while not job.totals().rows:
        assert running.poll() is None
        time.sleep(0.02)


def end(server: LookAlike, running: subprocess.Popen[str]) -> str:
    """What a job prints that ends after the request that it waits for; the server answers one after the other."""
    while running.poll() is None:
        server.let_go()
        time.sleep(0.5)
    return running.communicate()[1]


def test_running_job_is_stopped_by_cancel_and_continued_by_resume(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with lookalike("tei") as server:
        added = home.run("add", "slow", "--url", server.url, *PATIENT)
        assert added.status == 0, added.err
        server.stop_after(ANSWERED)
        texts, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        texts.write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(ROWS)))
        run = ("job", "run", str(texts), str(out), "--endpoint", "slow")
        options = ("--rows-per-request", "1", "--concurrency", "1")
        job = JobFolder(out)
        with subprocess.Popen(
            [*HUBGATE, *run, *options], env=home.env, stderr=subprocess.PIPE, text=True
        ) as running:
            wait_for_rows(job, running)
            second = home.run(*run, *options)
            assert (second.status, second.err.startswith("hubgate: Another process is working on ")) == (
                1,
                True,
            )
            assert home.run("job", "list").out.split("\n")[1].split()[1] == "running"
            assert home.run("job", "cancel", str(out)).status == 0
            said = end(server, running)
        assert running.returncode == 1
        assert said == STOPPED
        assert job.state().status is Status.CANCELLED
        done = job.totals().rows
        assert 0 < done < ROWS
        server.heal()
        resumed = home.run("job", "resume", job.id)
        assert resumed.status == 0, resumed.err
        assert len(out.read_text().splitlines()) == ROWS


def test_ctrl_c_ends_a_job_with_130_and_the_same_command_continues_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with lookalike("tei") as server:
        assert home.run("add", "slow", "--url", server.url, *PATIENT).status == 0
        server.stop_after(ANSWERED)
        texts, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        texts.write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(ROWS)))
        command = [
            *HUBGATE,
            "job",
            "run",
            str(texts),
            str(out),
            "--endpoint",
            "slow",
            "--rows-per-request",
            "1",
        ]
        job = JobFolder(out)
        with subprocess.Popen(
            [*command, "--concurrency", "1"], env=home.env, stderr=subprocess.PIPE, text=True
        ) as running:
            wait_for_rows(job, running)
            running.send_signal(signal.SIGINT)
            said = end(server, running)
        assert running.returncode == 130
        assert said == STOPPED
        assert job.state().reason == "It was interrupted."
        server.heal()
        assert home.run(*command[len(HUBGATE) :]).status == 0
        assert len(out.read_text().splitlines()) == ROWS


def test_killed_job_repeats_at_most_the_requests_in_flight(tmp_path: Path) -> None:
    """With the defaults: 8 requests of 128 rows."""
    home = Home(tmp_path)
    with lookalike("tei") as server:
        assert home.run("add", "slow", "--url", server.url, *PATIENT).status == 0
        server.stop_after(40)  # of 32 rows: eight requests of four have at least one whole answer
        texts, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        texts.write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(10 * ROWS)))
        command = ("job", "run", str(texts), str(out), "--endpoint", "slow")
        job = JobFolder(out)
        with home.serve():
            with subprocess.Popen([*HUBGATE, *command], env=home.env) as running:
                wait_for_rows(job, running)
                running.kill()
            assert job.totals().rows < 10 * ROWS
            server.heal()
            resumed = home.run(*command)
        assert resumed.status == 0, resumed.err
        assert len(out.read_text().splitlines()) == 10 * ROWS
        asked = sum(text.startswith("text ") for batch in server.batches for text in batch)
        assert asked - 10 * ROWS <= 8 * 128
