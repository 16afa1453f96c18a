"""The table of engines is complete and consistent."""

from __future__ import annotations

from collections import Counter

import pytest
from lookalikes.server import ENGINES as LOOKALIKES

from hubgate.domain.calls import Chat, Complete, Embed, Rerank, SparseEmbed, Tokenize
from hubgate.domain.endpoint import Engine, Task
from hubgate.upstreams.engines import descriptions, toolkit
from hubgate.upstreams.engines.specs import SPECS, EngineSpec, engine_by_owner, engine_of_image

WITHOUT_URL = {Engine.PROVIDER, Engine.OPENVINO, Engine.FAKE}
AT_A_URL = {engine: spec for engine, spec in SPECS.items() if engine not in WITHOUT_URL}


def test_every_engine_has_one_spec_and_a_unique_title() -> None:
    assert set(SPECS) == set(Engine)
    assert Counter(spec.title for spec in SPECS.values()).most_common(1)[0][1] == 1


def test_only_engines_without_a_url_have_no_routes() -> None:
    assert {engine for engine, spec in SPECS.items() if not spec.tasks} == WITHOUT_URL


@pytest.mark.parametrize(("engine", "spec"), AT_A_URL.items())
def test_every_task_has_a_route(engine: Engine, spec: EngineSpec) -> None:
    calls = {
        Task.TEXT_EMBEDDING: Embed,
        Task.RERANK: Rerank,
        Task.SPARSE_EMBEDDING: SparseEmbed,
        Task.COMPLETION: Complete,
        Task.CHAT_COMPLETION: Chat,
    }
    routed = {*spec.text_routes("a/model"), *spec.generation} - {Tokenize}
    assert routed == {calls[task] for task in spec.tasks}
    for route in spec.text_routes(None).values():
        assert not route.path or route.path.startswith("/")


def test_every_engine_has_one_detection_method_or_is_the_fallback() -> None:
    for engine, spec in AT_A_URL.items():
        ways = [way for way in (spec.read_info, spec.owned_by, spec.health) if way is not None]
        assert len(ways) == (engine is not Engine.OPENAI), engine


def test_engine_identifiers_are_unique() -> None:
    specs = SPECS.values()
    keys = [key for spec in specs for key in spec.image_keys]
    owners = [spec.owned_by for spec in specs if spec.owned_by]
    words = [spec.image_word for spec in specs if spec.image_word]
    for names in (keys, owners, words):
        assert len(names) == len(set(names))
        assert names == [name.casefold() for name in names]


def test_owners_and_images_identify_their_engine() -> None:
    assert engine_by_owner("vllm") is Engine.VLLM
    assert engine_by_owner("someone") is engine_by_owner(None) is engine_by_owner(["vllm"]) is Engine.OPENAI
    assert engine_of_image("TEI", None) is Engine.TEI
    assert engine_of_image("custom", "ghcr.io/acme/Infinity-on-vllm:1") is Engine.INFINITY
    assert engine_of_image("custom", "acme/model") is engine_of_image(None, None) is None


def test_readers_report_only_tasks_with_a_route() -> None:
    embedding = {"pooling": "mean"}
    for info in (
        {"model_type": {"embedding": embedding}, "tokenization_workers": 1},
        {"model_type": {"embedding": {"pooling": "splade"}}, "tokenization_workers": 1},
        {"model_type": {"reranker": {}}, "tokenization_workers": 1},
    ):
        found = descriptions.tei_info(info)
        assert found is not None
        assert found.tasks
        assert found.tasks <= SPECS[Engine.TEI].tasks
    tgi = descriptions.tgi_info({"router": "", "max_total_tokens": 1})
    assert tgi is not None
    assert tgi.tasks == SPECS[Engine.TGI].tasks
    paths = ("/v1/embeddings", "/rerank", "/v1/completions", "/v1/chat/completions")
    assert descriptions.tasks_by_routes({"paths": dict.fromkeys(paths)}) == SPECS[Engine.VLLM].tasks
    assert SPECS[Engine.SGLANG].tasks == SPECS[Engine.VLLM].tasks
    infinity = descriptions.tasks_by_capabilities({"capabilities": ["embed", "rerank", "classify"]})
    assert infinity == SPECS[Engine.INFINITY].tasks
    assert SPECS[Engine.TOOLKIT].embed is toolkit.TOOLKIT_EMBED


def test_every_engine_with_a_url_has_a_lookalike() -> None:
    assert set(AT_A_URL) - {Engine.OPENAI} <= set(LOOKALIKES)
