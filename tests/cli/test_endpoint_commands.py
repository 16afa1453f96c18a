"""`hubgate add`, `list`, `show`, `check`, `accept` and `remove`, through a running gateway."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lookalikes import lookalike

if TYPE_CHECKING:
    from commands import Command
    from running_gateway import RunningGateway

    from hubgate.settings import Settings

TINY_MODELS = Path(__file__).parents[1] / "data" / "tiny_models"
TOKEN = "hf_" + "t0ken" * 6


def test_add_passes_every_option_to_the_gateway(gateway: RunningGateway, hubgate: Command) -> None:
    with lookalike("tei", name="intfloat/e5-small", dimensions=16) as server:
        options = [
            *("--url", server.url, "--engine", "tei", "--model", "intfloat/e5-small", "--dimensions", "16"),
            *("--requests-per-minute", "300", "--tokens-per-minute", "9000", "--burst", "2"),
            *("--max-concurrent-requests", "4", "--prefix-query", "ask: ", "--prefix-document", "tell: "),
            *("--chunking", '{"strategy": "word", "max_chunk_size": 50, "overlap": 5}', "--no-cache"),
        ]
        added = hubgate("add", "e5", *options)
    assert (added.status, added.err) == (0, "")
    shown = gateway.request("GET", "/api/endpoints/e5").json()
    assert shown["url"] == server.url
    assert (shown["engine"], shown["model"], shown["dimensions"]) == ("tei", "intfloat/e5-small", 16)
    assert shown["rate_limit"] == {
        "requests_per_minute": 300,
        "tokens_per_minute": 9000,
        "max_concurrent_requests": 4,
        "burst": 2,
    }
    assert shown["prefixes"] == {"search": "ask: ", "ingest": "tell: "}
    assert shown["chunking_settings"] == {"strategy": "word", "max_chunk_size": 50, "overlap": 5}
    assert shown["cache"] is False
    assert added.out.splitlines()[:2] == [
        "Added e5: text_embedding, intfloat/e5-small, tei 1.9.3, 16 dimensions, up to 512 tokens.",
        "`hubgate show e5` shows all settings.",
    ]
    fields = hubgate("show", "e5").fields
    assert fields["rate_limit"].strip().startswith("requests_per_minute: 300, tokens_per_minute: 9000")
    assert fields["similarity"].strip() == "cosine"


def test_add_reads_the_token_from_the_environment_and_shows_only_its_end(
    gateway: RunningGateway, hubgate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    with lookalike("tei", key=TOKEN) as server:
        added = hubgate("add", "e5", "--url", server.url, "--token-env", "MY_TOKEN")
        assert added.status == 0, added.err
        shown = hubgate("show", "e5")
        assert TOKEN[-4:] in shown.fields["token"]
        assert TOKEN not in added.out + shown.out
        assert hubgate("add", "e6", "--url", server.url).err.startswith("hubgate: ")


def test_add_accepts_hugging_face_task_names(gateway: RunningGateway, hubgate: Command) -> None:
    added = hubgate("add", "words", "--fake", "--task", "sentence-similarity")
    assert added.out.startswith("Added words: text_embedding, ")


def test_add_stores_the_absolute_path_of_a_folder(
    gateway: RunningGateway, hubgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(TINY_MODELS / "bert", tmp_path / "here" / "bert")
    monkeypatch.chdir(tmp_path / "here")
    added = hubgate("add", "tiny", "--local", "bert")
    assert added.status == 0, added.err
    assert gateway.request("GET", "/api/endpoints/tiny").json()["model"] == str(tmp_path / "here" / "bert")


def test_add_prompts_for_the_token(gateway: RunningGateway, hubgate: Command) -> None:
    """Without a terminal, as here, the answer is read from standard input."""
    with lookalike("tei", key=TOKEN) as server:
        asked = subprocess.run(
            [sys.executable, "-m", "hubgate", "add", "e5", "--url", server.url, "--ask-token"],
            env=os.environ,
            input=TOKEN + "\n",
            capture_output=True,
            text=True,
            timeout=240,
            start_new_session=True,
            check=True,
        )
    assert "Access token" in asked.stdout + asked.stderr
    assert TOKEN not in asked.stdout + asked.stderr
    assert [row[0] for row in hubgate("list").rows] == ["e5"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "Specify where the model runs: one of --url, --local, --hosted or --fake."),
        (("--fake", "--local", "m"), "Specify where the model runs: one of --url, --local, --hosted or --fake."),
        (("--local", "m", "--model", "n"), "--local already names the model. Remove --model."),
        (("--fake", "--token-env", "NO_SUCH_VARIABLE"), "The environment variable NO_SUCH_VARIABLE is not set."),
        (("--fake", "--chunking", "{"), "--chunking is not valid JSON: "),
        (("--fake", "--chunking", "3"), "chunking_settings"),
        (("--url", "http://169.254.169.254"), "169.254.169.254"),
        (("--fake", "--task", "chat"), "Invalid --task 'chat'. It must be one of text_embedding, sparse_embedding, "),
    ],
)  # fmt: skip
def test_invalid_add_is_reported_in_one_line_and_stores_nothing(
    gateway: RunningGateway, hubgate: Command, options: tuple[str, ...], told: str
) -> None:
    failed = hubgate("add", "e5", *options)
    assert (failed.status, failed.out) == (1, "")
    assert failed.err.startswith("hubgate: ")
    assert told in failed.err
    assert failed.err.count("\n") == 1
    assert hubgate("list").rows == []


def test_check_reports_a_changed_model_and_accept_accepts_it(
    gateway: RunningGateway, hubgate: Command
) -> None:
    with lookalike("tei", dimensions=8) as server:
        assert hubgate("add", "e5", "--url", server.url).status == 0
        assert hubgate("check", "e5").out == "e5 still serves the registered model.\n"
        server.fail("other-dimensions")
        changed = hubgate("check", "e5")
        assert changed.status == 1
        assert "its dimensions was 8 and is 9" in changed.err
        accepted = hubgate("accept", "e5")
        assert accepted.status == 0, accepted.err
        assert accepted.out.startswith("Accepted e5: ")
        assert "9 dimensions" in accepted.out
        assert hubgate("check", "e5").status == 0


def test_list_prints_one_full_line_per_endpoint_into_a_pipe(
    gateway: RunningGateway, hubgate: Command
) -> None:
    model = "a/model-whose-name-is-longer-than-any-terminal-is-wide" * 5
    hubgate("add", "words", "--fake", "--model", model, "--dimensions", "8")
    listed = hubgate("list")
    assert listed.out.splitlines()[0].split(maxsplit=6)[6].strip() == "model or URL"
    assert listed.rows == [["words", "running", "text_embedding", "fake", "fake", "8", model]]


def test_show_omits_fields_the_task_does_not_use(gateway: RunningGateway, hubgate: Command) -> None:
    with lookalike("tei", kind="reranker") as server:
        hubgate("add", "ranker", "--url", server.url, "--task", "rerank")
    fields = {name.strip() for name in hubgate("show", "ranker").fields}
    assert {"task", "url", "rate_limit", "detected: engine"} <= fields
    unused = {"similarity", "prefixes", "cache", "chunking_settings"}
    assert not fields & {*unused, *(f"detected: {name}" for name in unused)}


def test_unknown_endpoint_is_reported_in_one_line(gateway: RunningGateway, hubgate: Command) -> None:
    for verb in ("show", "check", "accept", "remove"):
        failed = hubgate(verb, "nowhere")
        assert (failed.status, failed.out) == (1, "")
        assert failed.err == "hubgate: No endpoint is named [nowhere]. `hubgate list` lists the names.\n"
        assert hubgate(verb, "").err == "hubgate: The name is empty.\n"
        assert hubgate(verb, "a/b\udcff").status == 1


def test_misspelled_name_gets_a_suggestion(gateway: RunningGateway, hubgate: Command) -> None:
    gateway.add("minilm")
    assert hubgate("show", "minlm").err == (
        "hubgate: No endpoint is named [minlm]. Did you mean [minilm]? `hubgate list` lists the names.\n"
    )
    failed = hubgate("add", "e5", "--fake", "--connection", "nowhere").err
    assert failed == "hubgate: No connection is named [nowhere]. `hubgate connection list` lists them.\n"


def test_warnings_of_the_model_are_shown_last(gateway: RunningGateway, hubgate: Command) -> None:
    with lookalike("toolkit", kind="tokens", dimensions=8) as server:
        added = hubgate("add", "tokens", "--url", server.url)
    assert added.status == 0, added.err
    assert added.out.splitlines()[-1].split()[0] == "warning"


def test_endpoint_commands_work_on_the_home_without_a_running_gateway(
    hubgate: Command, settings: Settings
) -> None:
    first = hubgate("add", "words", "--fake")
    assert first.status == 0
    assert "The admin key, shown only once: hg_" in first.err
    removed = hubgate("remove", "words")
    assert (removed.out, removed.err) == ("Removed words.\n", "")
    assert hubgate("list").rows == []
    assert hubgate("show", "a/b").err.startswith("hubgate: ")
