from __future__ import annotations

import pytest

from hubgate.core.prompts import PrefixStep, family_prefixes, prefixes_from_prompts
from hubgate.domain.calls import Call, Embed, Encoding, InputType, Result, Tokenize, Tokens, Vectors

E5 = family_prefixes("intfloat/multilingual-e5-small")


class Recorder:
    """A model that remembers what it was asked."""

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


async def test_an_empty_prefix_of_one_kind_of_text_takes_no_others_away() -> None:
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
        ("sentence-transformers/all-MiniLM-L6-v2", None, None),
        (None, None, None),
    ],
)
def test_a_familys_prefixes_are_known_by_the_models_name(
    model: str | None, query: str | None, document: str | None
) -> None:
    known = family_prefixes(model)
    assert known.get(InputType.SEARCH) == query
    assert known.get(InputType.INGEST) == document


def test_an_instruct_model_of_a_family_is_not_taken_for_its_plain_sister() -> None:
    assert family_prefixes("intfloat/multilingual-e5-large-instruct")[InputType.SEARCH].startswith(
        "Instruct: "
    )
    assert family_prefixes("Qwen/Qwen3-Embedding-0.6B")[InputType.SEARCH].endswith("\nQuery:")


def test_a_models_own_prompts_are_read_by_the_names_in_use() -> None:
    assert prefixes_from_prompts({"query": "q: ", "passage": "p: ", "document": ""}) == {
        InputType.SEARCH: "q: ",
        InputType.INGEST: "p: ",
    }
    assert prefixes_from_prompts({}) == {}


async def test_each_kind_of_text_gets_its_prefix() -> None:
    call = await asked(Embed(texts=("cats", "dogs"), input_type=InputType.SEARCH))
    assert list(call.texts) == ["query: cats", "query: dogs"]
    call = await asked(Embed(texts=("cats",), input_type=InputType.INGEST))
    assert list(call.texts) == ["passage: cats"]


async def test_a_text_that_bears_a_prefix_already_is_left_as_it_is() -> None:
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
async def test_a_call_that_names_no_kind_of_text_is_left_alone(call: Call) -> None:
    assert await asked(call) is call


async def test_calls_of_different_kinds_can_be_joined_once_their_texts_are_prefixed() -> None:
    first = await asked(Embed(texts=("query: cats",), input_type=InputType.SEARCH))
    second = await asked(Embed(texts=("cats",), input_type=InputType.CLUSTERING))
    assert isinstance(first, Embed)
    assert isinstance(second, Embed)
    assert first.options == second.options
    assert list(first.texts) == list(second.texts)
