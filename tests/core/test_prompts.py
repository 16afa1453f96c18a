from __future__ import annotations

import pytest

from hubgate.core.prompts import (
    PrefixStep,
    family_prefixes,
    find_prefixes,
    needs_instructions,
    prefixes_from_prompts,
)
from hubgate.domain.calls import Call, Embed, Encoding, Result, Tokenize, Tokens, Vectors
from hubgate.domain.endpoint import InputType, PrefixSource

E5 = family_prefixes("intfloat/multilingual-e5-small")


class Recorder:
    """A model that records its calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def __call__(self, call: Call) -> Result:
        self.calls.append(call)
        return (
            Vectors(items=[b"[0]"] * len(call.texts), encoding=Encoding.JSON)
            if isinstance(call, Embed)
            else Tokens([])
        )


async def asked(call: Call) -> Call:
    model = Recorder()
    await PrefixStep(model, E5)(call)
    return model.calls[0]


async def test_empty_prefix_of_one_input_type_keeps_other_prefixes() -> None:
    model = Recorder()
    prefixes = {InputType.SEARCH: "query: ", InputType.INGEST: ""}
    await PrefixStep(model, prefixes)(Embed(texts=["a", "query: b"], input_type=InputType.SEARCH))
    assert model.calls[0].texts == ["query: a", "query: b"]


@pytest.mark.parametrize(
    ("model", "query", "document"),
    [
        ("intfloat/e5-small-v2", "query: ", "passage: "),
        ("intfloat/multilingual-e5-base", "query: ", "passage: "),
        ("/models/e5-large-v2/", "query: ", "passage: "),
        ("BAAI/bge-base-en-v1.5", "Represent this sentence for searching relevant passages: ", None),
        ("BAAI/bge-small-zh-v1.5", "为这个句子生成表示以用于检索相关文章：", None),
        ("BAAI/bge-m3", None, None),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "query: ", None),
        (
            "Snowflake/snowflake-arctic-embed-m-v1.5",
            "Represent this sentence for searching relevant passages: ",
            None,
        ),
        ("google/embeddinggemma-300m", "task: search result | query: ", "title: none | text: "),
        ("thenlper/gte-small", None, None),
        ("BAAI/bge-large-zh-noinstruct", None, None),
        ("nomic-embed-text-v1.5.Q8_0.gguf", "search_query: ", "search_document: "),
        ("nomic-ai/nomic-embed-text-v1.5-GGUF", "search_query: ", "search_document: "),
        ("nomic-embed-text:latest", "search_query: ", "search_document: "),
        ("onnx-community/e5-base-v2-ONNX", "query: ", "passage: "),
        ("OpenVINO/e5-base-v2-int8-ov", "query: ", "passage: "),
        ("multilingual-e5-large-q8_0.gguf", "query: ", "passage: "),
        ("elastic/multilingual-e5-small-optimized", "query: ", "passage: "),
        ("intfloat/e5-base-unsupervised", "query: ", "passage: "),
        ("embeddinggemma:300m", "task: search result | query: ", "title: none | text: "),
        ("mxbai-embed-large", "Represent this sentence for searching relevant passages: ", None),
        ("someone/e5-base-v2-finetuned", None, None),
        ("sentence-transformers/all-MiniLM-L6-v2", None, None),
        (None, None, None),
    ],
)
def test_finds_prefixes_by_model_name(model: str | None, query: str | None, document: str | None) -> None:
    known = family_prefixes(model)
    assert known.get(InputType.SEARCH) == query
    assert known.get(InputType.INGEST) == document


@pytest.mark.parametrize(
    ("model", "is_certain"),
    [
        ("BAAI/bge-large-en-v1.5", True),
        ("someone/bge-large-en-v1.5-GGUF", True),
        ("someone/bge-large-en-v1.5-legal", False),
        ("Qwen/Qwen3-Embedding-8B", True),
        ("qwen3-embedding:0.6b", True),
        ("someone/Qwen3-Embedding-0.6B-medical", False),
        ("google/embeddinggemma-300m", True),
        ("sentence-transformers/embeddinggemma-300m-medical", False),
        ("snowflake-arctic-embed2:568m", True),
        ("someone/snowflake-arctic-embed-m-v2.0-french", False),
        ("sentence-transformers/all-MiniLM-L6-v2", False),
    ],
)
def test_name_that_only_begins_like_a_family_is_not_certain(model: str, is_certain: bool) -> None:
    found = find_prefixes(model, None)
    assert (found.source, found.is_certain) == (PrefixSource.TABLE, is_certain)


def test_copy_has_the_prefixes_of_its_original_whatever_it_is_called() -> None:
    assert find_prefixes("someone/tiny-embedder", {}).source is PrefixSource.NONE
    found = find_prefixes("someone/tiny-embedder", {}, original="intfloat/e5-small-v2")
    assert (found.texts, found.source) == (
        family_prefixes("intfloat/e5-small-v2"),
        PrefixSource.TABLE,
    )
    own = find_prefixes("someone/tiny-embedder", {"query": "q: "}, original="intfloat/e5-small-v2")
    assert (own.texts, own.source) == ({InputType.SEARCH: "q: "}, PrefixSource.MODEL)


def test_instructor_models_need_instructions() -> None:
    assert needs_instructions("hkunlp/instructor-large")
    assert not needs_instructions("org/instructor")


def test_instruct_models_have_their_own_prefixes() -> None:
    assert family_prefixes("intfloat/multilingual-e5-large-instruct")[InputType.SEARCH].startswith(
        "Instruct: "
    )
    for name in ("Qwen/Qwen3-Embedding-0.6B", "qwen3-embedding:0.6b"):
        assert family_prefixes(name)[InputType.SEARCH].endswith("\nQuery:")


def test_reads_prefixes_from_model_prompts() -> None:
    assert prefixes_from_prompts({"query": "q: ", "passage": "p: ", "document": ""}) == {
        InputType.SEARCH: "q: ",
        InputType.INGEST: "p: ",
    }
    assert prefixes_from_prompts({}) == {}


async def test_adds_prefix_of_the_input_type() -> None:
    call = await asked(Embed(texts=("cats", "dogs"), input_type=InputType.SEARCH))
    assert list(call.texts) == ["query: cats", "query: dogs"]
    call = await asked(Embed(texts=("cats",), input_type=InputType.INGEST))
    assert list(call.texts) == ["passage: cats"]


async def test_keeps_text_that_already_has_a_prefix() -> None:
    call = await asked(Embed(texts=("query: cats", "passage: dogs"), input_type=InputType.INGEST))
    assert list(call.texts) == ["query: cats", "passage: dogs"]


@pytest.mark.parametrize(
    "call",
    [
        Embed(texts=("cats",)),
        Embed(texts=("cats",), input_type=InputType.SEARCH, prompt_name="s2p"),
        Tokenize(texts=("cats",)),
    ],
)
async def test_adds_no_prefix_without_input_type(call: Call) -> None:
    assert await asked(call) is call


async def test_default_prompt_is_added_to_texts_without_an_input_type() -> None:
    model = Recorder()
    step = PrefixStep(model, {InputType.SEARCH: "query: "}, default="text: ")
    await step(Embed(texts=("cats", "query: dogs", "text: cows")))
    await step(Embed(texts=("cats",), prompt_name="s2p"))
    await step(Embed(texts=("cats",), input_type=InputType.INGEST))
    assert [list(call.texts) for call in model.calls] == [
        ["text: cats", "query: dogs", "text: cows"],
        ["cats"],
        ["cats"],
    ]


async def test_prefixed_calls_of_different_input_types_have_equal_options() -> None:
    first = await asked(Embed(texts=("query: cats",), input_type=InputType.SEARCH))
    second = await asked(Embed(texts=("cats",), input_type=InputType.CLUSTERING))
    assert isinstance(first, Embed)
    assert isinstance(second, Embed)
    assert first.options == second.options
    assert list(first.texts) == list(second.texts)
