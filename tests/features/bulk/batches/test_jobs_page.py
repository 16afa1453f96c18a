"""The jobs page: the list, one job with its files, cancelling and resuming."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest
from batch_files import batch_input, create_batch, texts, wait_for_end
from console_client import ConsoleClient
from lookalikes import lookalike
from running_gateway import RunningGateway, eventually

from hubgate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types import Batch


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningGateway, dict[str, Batch]]]:
    """A gateway with a job that is done, one with an invalid input, and one that waits for its rate limit."""
    folder = tmp_path_factory.mktemp("jobs")
    settings = Settings(home=folder / "home", secret_key_file=folder / "config" / "secret.key", port=0)
    with lookalike("tei", dimensions=8) as server, RunningGateway(settings) as gateway:
        gateway.add("words", dimensions=8)
        gateway.add("slow", url=server.url, rate_limit={"requests_per_minute": 4})
        key = gateway.create_key("nightly")
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key) as client:
            bodies = [*texts(3), {"model": "nowhere", "input": "x"}]
            jobs = {
                "done": wait_for_end(client, create_batch(client, batch_input(bodies))),
                "invalid": wait_for_end(client, create_batch(client, b"{\n")),
                "running": create_batch(client, batch_input(texts(500, "slow"))),
            }
            path = f"/api/jobs/{jobs['running'].id}"
            eventually(lambda: gateway.request("GET", path).json()["completed"] > 0)
        yield gateway, jobs


@pytest.fixture
def console(world: tuple[RunningGateway, dict[str, Batch]]) -> ConsoleClient:
    made = ConsoleClient(world[0])
    made.sign_in()
    return made


def test_jobs_are_listed_with_their_progress(
    console: ConsoleClient, world: tuple[RunningGateway, dict[str, Batch]]
) -> None:
    words = console.get("/ui/jobs").words
    assert "4 of 4" in words
    assert "of 500" in words
    assert words.count("nightly") == 3 + 1  # three jobs, and its files
    assert words.index("Failed Time left") < words.index("Running") < words.index("Completed")
    assert "No jobs yet" in console.get("/ui/jobs?after=nothing").words


@pytest.mark.parametrize(
    ("language", "lead", "row"),
    [
        ("en", "of 10 GiB are used. Each key may hold 2 GiB.", "nightly 5"),
        ("zh", "，共 10 GiB。每个密钥最多可占用 2 GiB。", "nightly 5"),
        ("ja", "10 GiB のうち", "nightly 5"),
        ("fa", "از \u2068۱۰ GiB\u2069 پر شده است", "nightly ۵"),
    ],
)
def test_the_keys_that_hold_files_are_shown(
    console: ConsoleClient, language: str, lead: str, row: str
) -> None:
    console.cookies["hubgate_language"] = language
    words = console.get("/ui/jobs").words
    assert lead in words
    assert row in words
    assert row not in console.get("/ui/jobs?after=nothing").words


def test_of_many_keys_those_that_hold_most_are_shown(gateway: RunningGateway) -> None:
    console = ConsoleClient(gateway)
    console.sign_in()
    assert "Files held" not in console.get("/ui/jobs").words
    for number in range(22):
        key = gateway.create_key(f"key-{number:02}")
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key) as client:
            client.files.create(file=("a.jsonl", b"x" * (number + 1)), purpose="batch")
    words = console.get("/ui/jobs").words
    assert words.index("key-21 1 22 B") < words.index("key-02 1 3 B")
    assert "key-01" not in words
    assert "2 more keys hold less." in words


def test_the_page_says_why_the_room_is_unknown(settings: Settings) -> None:
    settings.home.mkdir(mode=0o700)
    settings.files.write_text("a file in place of the folder")
    with RunningGateway(settings) as gateway:
        console = ConsoleClient(gateway)
        console.sign_in()
        page = console.get("/ui/jobs")
        assert page.status == 200
        assert "The folder for files cannot be used: File exists." in page.words
        reply = gateway.request("GET", "/api/files")
        assert (reply.status, reply.json()["error"]["cause"]) == (503, "store_failed")


def test_a_job_shows_its_files_and_its_faults(
    console: ConsoleClient, world: tuple[RunningGateway, dict[str, Batch]]
) -> None:
    jobs = world[1]
    page = console.get(f"/ui/jobs/{jobs['done'].id}")
    assert "Download output" in page.words
    assert "Resume" in page.words
    output = console.get(f"/ui/jobs/{jobs['done'].id}/files/output")
    assert output.text.count('"status_code":200') == 3
    assert f"{jobs['done'].id}_output.jsonl" in output.headers["content-disposition"]
    assert console.get(f"/ui/jobs/{jobs['done'].id}/files/errors").text.count('"status_code":404') == 1
    invalid = console.get(f"/ui/jobs/{jobs['invalid'].id}").words
    assert "Line 1: The line is not valid JSON." in invalid
    assert "Resume" not in invalid
    assert console.get(f"/ui/jobs/{jobs['invalid'].id}/files/output").status == 404
    assert console.get("/ui/jobs/batch_unknown").status == 404


def test_a_job_is_cancelled_after_a_question(gateway: RunningGateway) -> None:
    console = ConsoleClient(gateway)
    console.sign_in()
    assert "No jobs yet" in console.get("/ui/jobs").words
    with lookalike("tei", dimensions=8) as server:
        gateway.add("slow", url=server.url, rate_limit={"requests_per_minute": 4})
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.admin_key) as client:
            job = create_batch(client, batch_input(texts(300, "slow")))
            path = f"/ui/jobs/{job.id}"
            eventually(lambda: "Running" in console.get(path).words)
            assert "You can resume the job later." in console.get(f"{path}/cancel").words
            assert console.post(f"{path}/cancel").headers["location"] == path
            assert wait_for_end(client, job).status == "cancelled"
            assert "hx-get" not in console.get(f"{path}/progress").text
            assert console.post(f"{path}/resume").headers["location"] == path
            assert "Running" in console.get(path).words
            client.batches.cancel(job.id)
            wait_for_end(client, job)


def test_a_file_is_uploaded_estimated_and_started(gateway: RunningGateway) -> None:
    gateway.add("words", dimensions=8)
    console = ConsoleClient(gateway)
    console.sign_in()
    page = console.upload("/ui/jobs", "new.jsonl", batch_input(texts(12)))
    assert page.status == 303
    path = page.headers["location"]
    estimate = console.get(path)
    assert "new.jsonl" in estimate.words
    assert "Vectors 12" in estimate.words
    started = console.post(path, {"path": "/v1/embeddings", "window": "24h"})
    assert started.status == 303
    job = f"/api/jobs/{started.headers['location'].rpartition('/')[2]}"
    eventually(lambda: gateway.request("GET", job).json()["status"] == "completed")
    assert gateway.request("GET", job).json()["completed"] == 12

    invalid = console.upload("/ui/jobs", "bad.jsonl", b"{\n")
    words = console.get(invalid.headers["location"]).words
    assert "The file is not valid" in words
    assert "Start job" not in words


def test_an_upload_without_the_token_of_the_session_is_rejected(
    console: ConsoleClient, world: tuple[RunningGateway, dict[str, Batch]]
) -> None:
    before = len(world[0].request("GET", "/v1/files").json()["data"])
    console.csrf = "wrong"
    assert console.upload("/ui/jobs", "in.jsonl", batch_input(texts(1))).status == 403
    assert len(world[0].request("GET", "/v1/files").json()["data"]) == before
