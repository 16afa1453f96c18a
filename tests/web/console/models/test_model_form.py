"""From a sent form to an endpoint, and back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hubgate.domain.chunking import ChunkingSettings
from hubgate.domain.endpoint import Endpoint, Engine, InputType, Precision, Similarity, Source, Task
from hubgate.domain.errors import InvalidEndpoint, InvalidRequest
from hubgate.web.console.models.chunking import parse_chunking
from hubgate.web.console.models.form import EMPTY, KEEP, NEW, Faults, endpoint_of, form_of

TOKEN = "hf_aTokenThatNobodyHas1234"


def form(**fields: str) -> dict[str, str]:
    """A form of a hosted embedding model, with some fields as given."""
    usual = {
        "where": "router",
        "model": "intfloat/e5-small-v2",
        "name": "e5",
        "connection": NEW,
        "token": TOKEN,
    }
    return {**EMPTY, **usual, **fields}


@pytest.mark.parametrize(
    ("fields", "source", "task"),
    [
        ({}, Source.ROUTER, Task.TEXT_EMBEDDING),
        ({"kind": "llm", "task_llm": "chat_completion"}, Source.ROUTER, Task.CHAT_COMPLETION),
        ({"kind": "rerank"}, Source.ROUTER, Task.RERANK),
        ({"where": "local", "token": ""}, Source.LOCAL, Task.TEXT_EMBEDDING),
        ({"where": "dedicated", "url": "http://127.0.0.1:1"}, Source.DEDICATED, Task.TEXT_EMBEDDING),
        ({"task_embedding": "sparse_embedding"}, Source.ROUTER, Task.SPARSE_EMBEDDING),
    ],
)
def test_types_determine_source_and_task(fields: dict[str, str], source: Source, task: Task) -> None:
    endpoint, _ = endpoint_of(form(**fields))
    assert (endpoint.source, endpoint.task) == (source, task)


def test_fields_of_another_endpoint_type_are_ignored() -> None:
    endpoint, _ = endpoint_of(
        form(url="http://left.over", namespace="me", where="local", provider="x", token="")
    )
    assert (endpoint.url, endpoint.namespace, endpoint.provider) == (None, None, None)


def test_proxy_applies_only_to_remote_models() -> None:
    elsewhere = {"proxy": "http://127.0.0.1:3128", "ca_bundle": "/a.pem"}
    local = endpoint_of(form(where="local", token="", **elsewhere))[0]
    assert (local.proxy, local.ca_bundle) == (None, None)
    hosted = endpoint_of(form(**elsewhere))[0]
    assert (hosted.proxy, hosted.ca_bundle) == tuple(elsewhere.values())


@pytest.mark.parametrize("kind", ["llm", "rerank"])
def test_vector_fields_are_ignored_for_models_without_vectors(kind: str) -> None:
    left = {"dimensions": "384", "similarity": "l2_norm", "prefix_search": "q: ", "max_chunk_size": "many"}
    assert endpoint_of(form(kind=kind, **left))[0] == endpoint_of(form(kind=kind))[0]
    vectors = endpoint_of(form(dimensions="384", similarity="l2_norm"))[0]
    assert endpoint_of(form(kind=kind, **left), vectors)[0] == endpoint_of(form(kind=kind))[0]


def test_stored_vector_settings_are_kept_for_models_without_vectors() -> None:
    old = replace(endpoint_of(form(kind="rerank"))[0], chunking=ChunkingSettings(strategy="none"))
    assert endpoint_of({**form_of(old, has_token=True), "dimensions": "x"}, old)[0] == old


def test_endpoint_name_is_derived_from_the_model_by_default() -> None:
    assert endpoint_of(form(name="", model="org/My Model_v2".replace(" ", "-")))[0].name == "my-model_v2"


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"model": "", "name": "x"}, {"model": "fault.missing"}),
        ({"where": "dedicated", "url": ""}, {"url": "fault.missing"}),
        (
            {"where": "dedicated", "url": "", "name": "", "model": ""},
            {"url": "fault.missing"},
        ),
        ({"token": ""}, {"token": "fault.token"}),
        ({"requests_per_minute": "many"}, {"requests_per_minute": "fault.whole"}),
        ({"dimensions": "0"}, {"dimensions": "fault.whole"}),
        ({"burst": "-1"}, {"burst": "fault.whole"}),
        ({"timeout": "soon"}, {"timeout": "fault.seconds"}),
        ({"timeout": "0"}, {"timeout": "fault.seconds"}),
        ({"strategy": "sentence", "max_chunk_size": ""}, {"max_chunk_size": "fault.whole"}),
        ({"strategy": "word", "overlap": "x"}, {"overlap": "fault.whole"}),
    ],
)
def test_invalid_values_are_reported_by_field(fields: dict[str, str], fault: dict[str, str]) -> None:
    with pytest.raises(Faults) as caught:
        endpoint_of(form(**fields))
    assert caught.value.fields == fault


@pytest.mark.parametrize(
    "fields", [{"kind": "x"}, {"where": "x"}, {"strategy": "x"}, {"task_embedding": "x"}]
)
def test_values_that_no_browser_sends_are_rejected(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        endpoint_of(form(**fields))


def test_invalid_endpoint_is_rejected_by_the_domain() -> None:
    with pytest.raises(InvalidEndpoint):
        endpoint_of(form(name="Not A Name"))


def test_numbers_may_have_persian_digits_and_separators() -> None:
    numbers = {"requests_per_minute": "۳٬۰۰۰", "timeout": "۲٫۵", "max_chunk_size": "۱۰۰"}
    endpoint, _ = endpoint_of(form(strategy="sentence", **numbers))
    assert (endpoint.requests_per_minute, endpoint.timeout) == (3000, 2.5)
    assert endpoint.chunking is not None
    assert endpoint.chunking.max_chunk_size == 100


def test_endpoint_without_a_strategy_fits_its_model() -> None:
    endpoint, _ = endpoint_of(form())
    assert endpoint.chunking is None
    assert form_of(endpoint, has_token=False)["strategy"] == "fit"


def test_token_is_new_kept_removed_or_from_a_connection() -> None:
    endpoint, token = endpoint_of(form())
    assert token
    assert (token.reveal(), endpoint.connection) == (TOKEN, None)
    for choice, connection in ((KEEP, None), ("", None), ("team", "team")):
        endpoint, token = endpoint_of(form(connection=choice))
        assert (token, endpoint.connection) == (None, connection)


def test_unchanged_form_of_an_endpoint_keeps_it_equal() -> None:
    endpoint = Endpoint(
        name="e5",
        task=Task.TEXT_EMBEDDING,
        source=Source.DEDICATED,
        model="intfloat/e5-small-v2",
        url="http://127.0.0.1:1",
        namespace="me",
        similarity=Similarity.DOT_PRODUCT,
        dimensions=384,
        max_input_tokens=512,
        connection="team",
        proxy="http://127.0.0.1:3128",
        ca_bundle="/etc/ca.pem",
        timeout=2.5,
        fallback="other",
        requests_per_minute=300,
        tokens_per_minute=10_000,
        max_concurrent_requests=4,
        burst=2,
        max_batch_texts=16,
        prefixes={InputType.SEARCH: "query: ", InputType.INGEST: "passage: "},
        cached=False,
        chunking=ChunkingSettings(strategy="word", max_chunk_size=120, overlap=20),
        enabled=False,
    )
    shown = form_of(endpoint, has_token=False)
    assert shown["connection"] == "team"
    assert endpoint_of(shown, endpoint) == (endpoint, None)
    for unlike in (
        replace(endpoint, task=Task.RERANK),
        replace(endpoint, connection=None, source=Source.ROUTER, url=None, namespace=None, bill_to="org"),
        replace(endpoint, chunking=ChunkingSettings(strategy="none")),
    ):
        assert endpoint_of(form_of(unlike, has_token=True), unlike)[0] == unlike


def test_custom_separators_keep_their_spelling_unless_changed() -> None:
    own = ChunkingSettings(strategy="recursive", max_chunk_size=50, separators=("---", "\n", "\r\n "))
    endpoint = Endpoint(name="e5", task=Task.TEXT_EMBEDDING, source=Source.FAKE, chunking=own)
    shown = form_of(endpoint, has_token=False)
    assert (shown["separator_group"], shown["separators"]) == ("own", "---\n\\n\n\\r\\n ")
    sent = {**shown, "separators": shown["separators"].replace("\n", "\r\n")}
    assert endpoint_of(sent, endpoint)[0] == endpoint
    changed = endpoint_of({**sent, "separators": "===\r\n\r\n\\n "}, endpoint)[0].chunking
    assert changed is not None
    assert changed.separators == ("===", "\\n ")
    grouped = endpoint_of({**sent, "separator_group": "markdown"}, endpoint)[0].chunking
    assert grouped is not None
    assert grouped.separators is not None
    assert grouped.separators[0] == "\n# "


def test_no_prefixes_differs_from_the_models_known_prefixes() -> None:
    assert endpoint_of(form())[0].prefixes is None
    assert endpoint_of(form(no_prefixes="on"))[0].prefixes == {}
    assert endpoint_of(form(prefix_clustering="c: ", no_prefixes="on"))[0].prefixes == {
        InputType.CLUSTERING: "c: "
    }


def test_all_empty_prefixes_stay_none() -> None:
    old = replace(endpoint_of(form())[0], prefixes={InputType.SEARCH: ""})
    assert endpoint_of(form_of(old, has_token=True), old)[0].prefixes == {}


def test_reranker_fields_apply_only_to_rerankers() -> None:
    ranking = {"top_n": "3", "return_documents": "true"}
    ranked = endpoint_of(form(kind="rerank", **ranking))[0]
    assert (ranked.top_n, ranked.return_documents) == (3, True)
    other = endpoint_of(form(**ranking | {"top_n": "many"}))[0]
    assert (other.top_n, other.return_documents) == (None, None)


def test_precision_applies_to_local_models_and_engine_to_those_by_url() -> None:
    chosen = {"precision": "bf16", "engine": "vllm", "url": "http://127.0.0.1:1"}
    local, dedicated = (endpoint_of(form(where=where, **chosen))[0] for where in ("local", "dedicated"))
    assert (local.precision, local.engine) == (Precision.BF16, None)
    assert (dedicated.precision, dedicated.engine) == (Precision.F32, Engine.VLLM)


def test_chunking_settings_are_those_of_elasticsearch() -> None:
    faults: dict[str, str] = {}
    assert parse_chunking(form(), faults) is None
    assert parse_chunking(form(strategy="sentence"), faults) == {
        "strategy": "sentence",
        "max_chunk_size": 250,
        "sentence_overlap": 1,
    }
    recursive = parse_chunking(form(strategy="recursive", separator_group="plaintext"), faults)
    assert recursive == {"strategy": "recursive", "max_chunk_size": 250, "separator_group": "plaintext"}
    assert parse_chunking(form(strategy="none"), faults) == {"strategy": "none"}
    assert faults == {}
    parse_chunking(form(strategy="recursive", separator_group="own", separators="\r\n"), faults)
    assert faults == {"separators": "fault.missing"}
