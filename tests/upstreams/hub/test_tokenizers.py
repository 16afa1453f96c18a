"""Tokenizers of remote models: their sources, and what happens when they are unavailable."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from lookalikes.hub import COMMIT, TOKEN, Hub, running_hub

from hubgate.domain.endpoint import Endpoint, Engine, Facts, Source, Target, Task, TokenCounts
from hubgate.domain.secret import Secret
from hubgate.upstreams.hub.tokenizers import TokenizerFiles
from hubgate.upstreams.local.files import packaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hubgate.store.store import SqlStore

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
NAMES = ("tokenizer.json", "config.json", "sentence_bert_config.json", "tokenizer_config.json")
NO_HUB = "http://127.0.0.1:9"


def minilm_files() -> dict[str, bytes]:
    folder = packaged(MINILM)
    assert folder is not None
    return {name: (folder / name).read_bytes() for name in NAMES}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub(minilm_files() | {"model.safetensors": b"not wanted"}) as server:
        yield server


def endpoint(
    model: str | None = "open/model",
    *,
    named: str | None = None,
    revision: str | None = None,
    counts: TokenCounts = TokenCounts.ESTIMATED,
) -> Endpoint:
    facts = Facts(engine=Engine.INFINITY, model=model, revision=revision, token_counts=counts)
    return Endpoint(
        name="e",
        task=Task.TEXT_EMBEDDING,
        source=Source.DEDICATED,
        url="http://127.0.0.1:9",
        model=named,
        facts=facts,
    )


async def learned(files: TokenizerFiles, of: Endpoint, token: str | None = None) -> Endpoint:
    return replace(of, facts=await files.learn(Target(of, Secret(token) if token else None)))


async def counts(files: TokenizerFiles, of: Endpoint, *texts: str) -> object:
    counter = files.open(of)
    assert counter is not None
    return await counter(texts, 256)


async def test_tokenizer_and_limit_come_from_the_model_repository(hub: Hub, tmp_path: Path) -> None:
    files = TokenizerFiles(tmp_path, hf_endpoint=hub.url)
    known = await learned(files, endpoint())
    assert (known.facts.token_counts, known.facts.max_input_tokens) == (TokenCounts.TOKENIZER, 256)
    assert known.facts.warnings == ()
    assert {path.rpartition("/")[2] for path in hub.asked} == set(NAMES)
    hub.asked.clear()
    assert await counts(files, known, "hello world", "tokenizers") == [4, 5]
    assert hub.asked == []
    assert hub.tokens == {None}


async def test_model_that_lower_cases_its_texts_is_counted_by_its_tokenizer(tmp_path: Path) -> None:
    own = {"sentence_bert_config.json": b'{"max_seq_length": 512, "do_lower_case": true}'}
    with running_hub(minilm_files() | own) as hub:
        files = TokenizerFiles(tmp_path, hf_endpoint=hub.url)
        known = await learned(files, endpoint())
    assert (known.facts.token_counts, known.facts.max_input_tokens) == (TokenCounts.TOKENIZER, 512)
    assert known.facts.warnings == ()
    assert await counts(files, known, "Hello WORLD") == [4]


async def test_hosted_model_is_counted_by_its_tokenizer(hub: Hub, tmp_path: Path) -> None:
    files = TokenizerFiles(tmp_path, hf_endpoint=hub.url)
    known = await learned(files, replace(endpoint(), source=Source.ROUTER, model="open/model", url=None))
    assert (known.facts.token_counts, known.facts.warnings) == (TokenCounts.TOKENIZER, ())
    assert await counts(files, known, "hello world") == [4]


async def test_tokenizer_is_available_after_restart_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    known = await learned(TokenizerFiles(tmp_path, hf_endpoint=hub.url), endpoint())
    later = TokenizerFiles(tmp_path, hf_endpoint=NO_HUB)
    assert await counts(later, known, "hello world") == [4]
    assert await learned(later, endpoint()) == known


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_gateways_of_one_database_share_a_tokenizer(hub: Hub, tmp_path: Path, store: SqlStore) -> None:
    first = TokenizerFiles(tmp_path / "first", hf_endpoint=hub.url, shared=store.files)
    known = await learned(first, endpoint())
    elsewhere = TokenizerFiles(tmp_path / "elsewhere", hf_endpoint=NO_HUB, shared=store.files)
    await elsewhere.share([known, endpoint("another/model", counts=TokenCounts.TOKENIZER)])
    assert await counts(elsewhere, known, "hello world", "tokenizers") == [4, 5]
    registered_there = TokenizerFiles(tmp_path / "elsewhere", hf_endpoint=hub.url, shared=store.files)
    assert await learned(registered_there, endpoint()) == known, "the model's limit is not in that file"
    restarted = TokenizerFiles(tmp_path / "elsewhere", hf_endpoint=NO_HUB)
    assert await counts(restarted, known, "hello world") == [4]


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_tokenizers_of_a_moved_home_are_shared_when_it_starts(
    hub: Hub, tmp_path: Path, store: SqlStore
) -> None:
    known = await learned(TokenizerFiles(tmp_path, hf_endpoint=hub.url), endpoint(revision=COMMIT))
    assert await store.files.names() == set()
    await TokenizerFiles(tmp_path, hf_endpoint=NO_HUB, shared=store.files).share([known])
    (name,) = await store.files.names()
    await store.files.add(name, b"later")
    assert await store.files.read(name) == minilm_files()["tokenizer.json"], "the first one stays"


async def test_limit_reported_by_the_server_is_kept(hub: Hub, tmp_path: Path) -> None:
    of = endpoint()
    of = replace(of, facts=replace(of.facts, max_input_tokens=512))
    known = await learned(TokenizerFiles(tmp_path, hf_endpoint=hub.url), of)
    assert known.facts.max_input_tokens == 512


@pytest.mark.parametrize(
    ("of", "revision"),
    [
        (endpoint("/repository", named="open/model"), "main"),
        (endpoint("served/name", named="open/model", revision=COMMIT), "main"),
        (endpoint(revision=COMMIT), COMMIT),
        (endpoint(revision="sha256:1"), "main"),
    ],
)
async def test_configured_model_takes_precedence_and_server_revision_fits_only_its_model(
    hub: Hub, tmp_path: Path, of: Endpoint, revision: str
) -> None:
    files = TokenizerFiles(tmp_path, hf_endpoint=hub.url)
    known = await learned(files, of)
    assert all(path.startswith(f"/open/model/resolve/{revision}/") for path in hub.asked)
    assert await counts(files, known, "hello") == [3]


@pytest.mark.parametrize(
    ("token", "sent"), [(TOKEN, f"Bearer {TOKEN}"), ("sk-of-a-server-of-their-own", None)]
)
async def test_only_a_hub_token_is_sent_to_the_hub(
    hub: Hub, tmp_path: Path, token: str, sent: str | None
) -> None:
    await learned(TokenizerFiles(tmp_path, hf_endpoint=hub.url), endpoint(), token)
    assert hub.tokens == {sent}


async def test_private_tokenizer_is_downloaded_with_the_endpoint_token(hub: Hub, tmp_path: Path) -> None:
    known = await learned(TokenizerFiles(tmp_path, hf_endpoint=hub.url), endpoint("private/model"), TOKEN)
    assert known.facts.token_counts is TokenCounts.TOKENIZER


async def test_packaged_model_needs_no_hub(tmp_path: Path) -> None:
    files = TokenizerFiles(tmp_path, hf_endpoint=NO_HUB)
    known = await learned(files, endpoint(MINILM))
    assert (known.facts.token_counts, known.facts.max_input_tokens) == (TokenCounts.TOKENIZER, 256)
    assert await counts(files, known, "hello") == [3]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("gated/model", "its terms must be accepted first"),
        ("absent/model", "the Hub has no such model, or it is private"),
        ("broken/model", "the Hub is unreachable or failed"),
        ("minilm", "does not report a model of the Hub: set [model]"),
        ("/repository", "does not report a model of the Hub: set [model]"),
        ("../../etc", "does not report a model of the Hub: set [model]"),
        (None, "does not report a model of the Hub: set [model]"),
    ],
)
async def test_missing_tokenizer_is_reported_with_reason(
    hub: Hub, tmp_path: Path, model: str | None, why: str
) -> None:
    files = TokenizerFiles(tmp_path, hf_endpoint=hub.url)
    known = await learned(files, endpoint(model))
    assert known.facts.token_counts is TokenCounts.ESTIMATED
    (warning,) = known.facts.warnings
    assert warning.startswith("Tokens are estimated: the model's tokenizer is not available.")
    assert why in warning
    assert files.open(known) is None


async def test_server_that_counts_tokens_gives_no_warning(tmp_path: Path) -> None:
    of = endpoint(counts=TokenCounts.ENGINE)
    assert await learned(TokenizerFiles(tmp_path, hf_endpoint=NO_HUB), of) == of


async def test_local_models_count_their_own_tokens(tmp_path: Path) -> None:
    of = replace(endpoint(), source=Source.LOCAL, model=MINILM, url=None)
    assert await learned(TokenizerFiles(tmp_path, hf_endpoint=NO_HUB), of) == of


async def test_repository_without_tokenizer_file_gives_estimated_counts(hub: Hub, tmp_path: Path) -> None:
    del hub.files["tokenizer.json"]
    known = await learned(TokenizerFiles(tmp_path, hf_endpoint=hub.url), endpoint())
    assert known.facts.token_counts is TokenCounts.ESTIMATED
    assert "The repository open/model has no tokenizer.json." in known.facts.warnings[0]


async def test_silent_hub_delays_registration_only_until_timeout(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        known = await learned(TokenizerFiles(tmp_path, hf_endpoint=url, timeout=0.01), endpoint())
    (warning,) = known.facts.warnings  # in the words of whoever lost patience first: we, or the library
    assert "The Hub did not respond within 0.01 seconds." in warning or "the Hub is unreachable" in warning


@pytest.mark.parametrize("address", [NO_HUB, "no address"])
async def test_unreachable_hub_is_reported(tmp_path: Path, address: str) -> None:
    known = await learned(TokenizerFiles(tmp_path, hf_endpoint=address), endpoint(revision=COMMIT))
    assert "the Hub is unreachable" in known.facts.warnings[0]


async def test_unreadable_file_of_the_limit_does_not_keep_the_tokenizer_from_counting(
    hub: Hub, tmp_path: Path
) -> None:
    hub.files["sentence_bert_config.json"] = b"[" * 100_000
    files = TokenizerFiles(tmp_path, hf_endpoint=hub.url)
    known = await learned(files, endpoint())
    assert (known.facts.token_counts, known.facts.max_input_tokens) == (TokenCounts.TOKENIZER, None)
    assert await counts(files, known, "hello world") == [4]


async def test_missing_tokenizers_library_is_reported_with_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    known = await learned(TokenizerFiles(tmp_path, hf_endpoint=NO_HUB), endpoint())
    assert 'pip install "hubgate[local]"' in known.facts.warnings[0]


async def test_library_removed_later_is_reported_once_and_disables_counting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = TokenizerFiles(tmp_path, hf_endpoint=NO_HUB)
    known = await learned(files, endpoint(MINILM))
    monkeypatch.delitem(sys.modules, "hubgate.runtime.model.tokenizer", raising=False)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert await counts(files, known, "hello") is None
    assert "are estimated from now on" in caplog.text


async def test_broken_tokenizer_file_is_reported_once_and_can_be_replaced(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.files["tokenizer.json"] = b"{"
    folder = tmp_path / "models--open--model" / "snapshots" / COMMIT
    files = TokenizerFiles(tmp_path, hf_endpoint=hub.url)
    known = await learned(files, endpoint())
    live = files.open(known)
    assert live is not None
    with caplog.at_level(logging.WARNING):
        assert await asyncio.gather(*(live(["hello"], None) for _ in range(5))) == [None] * 5
        assert await live(["hello"], None) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"tokens of open/model are estimated from now on: {folder / 'tokenizer.json'} cannot be read"
    ]
    shutil.rmtree(tmp_path)
    hub.files.update(minilm_files())
    assert await counts(files, await learned(files, endpoint()), "hello") == [3]


async def test_deleted_tokenizer_file_is_reported(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = TokenizerFiles(tmp_path, hf_endpoint=hub.url)
    known = await learned(files, endpoint())
    shutil.rmtree(tmp_path)
    assert await counts(files, known, "hello") is None
    assert "estimated from now on" in caplog.text


async def test_endpoints_of_one_model_share_a_counter_until_the_last_closes(hub: Hub, tmp_path: Path) -> None:
    files = TokenizerFiles(tmp_path, hf_endpoint=hub.url)
    known = await learned(files, endpoint())
    one = files.open(known)
    assert one is not None
    other = await learned(files, endpoint())
    assert files.open(other) is one
    assert len(files._counters) == 1
    del one
    assert len(files._counters) == 0


def test_tokenizer_libraries_are_not_imported_at_startup() -> None:
    asked = "import sys, hubgate.wiring; sys.exit(bool({'tokenizers', 'huggingface_hub'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", asked], check=True)
