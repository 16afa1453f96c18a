"""The prefixes that asymmetric models expect before a text.

Each row of the table is a family of models, with the model card that it is from. A model's own prompts win over this
table, and the operator's settings over both. Other families get no prefix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from hubgate.domain.calls import Call, Embed, InputType, Result
from hubgate.domain.ports import Handler

_SENTENCE = "Represent this sentence for searching relevant passages: "
_WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


class _Row(NamedTuple):
    pattern: str
    """Matches the start of the lower-case name, without the owner."""
    query: str
    document: str
    classification: str
    clustering: str
    card: str
    """The repository of the card or the `config_sentence_transformers.json`."""


_TABLE = (
    # e5: symmetric tasks and features take `query: ` too.
    _Row(r"multilingual-e5-large-instruct|e5-mistral-7b-instruct", f"{_WEB_SEARCH} ", "", "", "", "intfloat/multilingual-e5-large-instruct"),
    _Row(r"(multilingual-)?e5-(small|base|large)(-v2)?$", "query: ", "passage: ", "query: ", "query: ", "intfloat/e5-small-v2"),
    _Row(r"bge-(small|base|large)-zh", "为这个句子生成表示以用于检索相关文章：", "", "", "", "BAAI/bge-large-zh-v1.5"),
    _Row(r"bge-(small|base|large)-en", _SENTENCE, "", "", "", "BAAI/bge-large-en-v1.5"),
    _Row(r"mxbai-embed-large-v1|uae-large-v1", _SENTENCE, "", "", "", "mixedbread-ai/mxbai-embed-large-v1"),
    _Row(r"nomic-embed-text-v(1|1\.5|2-moe)$", "search_query: ", "search_document: ", "classification: ", "clustering: ", "nomic-ai/nomic-embed-text-v1.5"),
    _Row(r"snowflake-arctic-embed-[ml]-v2", "query: ", "", "", "", "Snowflake/snowflake-arctic-embed-l-v2.0"),
    _Row(r"snowflake-arctic-embed-(xs|s|m|l)", _SENTENCE, "", "", "", "Snowflake/snowflake-arctic-embed-m-v1.5"),
    _Row(r"gte-qwen2-", f"{_WEB_SEARCH} ", "", "", "", "Alibaba-NLP/gte-Qwen2-1.5B-instruct"),
    _Row(r"qwen3-embedding-", _WEB_SEARCH, "", "", "", "Qwen/Qwen3-Embedding-0.6B"),
    _Row(
        r"jina-embeddings-v3",
        "Represent the query for retrieving evidence documents: ",
        "Represent the document for retrieval: ",
        "",
        "",
        "jinaai/jina-embeddings-v3",
    ),
    _Row(
        r"embeddinggemma-",
        "task: search result | query: ",
        "title: none | text: ",
        "task: classification | query: ",
        "task: clustering | query: ",
        "google/embeddinggemma-300m",
    ),
)  # fmt: skip

# The names of prompts in sentence-transformers configurations, the most common first.
_NAMES = {
    InputType.SEARCH: ("query", "retrieval.query", "search_query", "Retrieval-query"),
    InputType.INGEST: ("document", "passage", "retrieval.passage", "search_document", "Retrieval-document"),
    InputType.CLASSIFICATION: ("classification", "Classification"),
    InputType.CLUSTERING: ("clustering", "Clustering"),
}


def family_prefixes(model: str | None) -> Mapping[InputType, str]:
    """The prefixes of a model's family; empty if unknown. `model` is the Hub id or the name of the folder."""
    name = (model or "").rstrip("/").rsplit("/", 1)[-1].lower()
    for row in _TABLE:
        if re.match(row.pattern, name):
            prefixes = {
                InputType.SEARCH: row.query,
                InputType.INGEST: row.document,
                InputType.CLASSIFICATION: row.classification,
                InputType.CLUSTERING: row.clustering,
            }
            return {kind: prefix for kind, prefix in prefixes.items() if prefix}
    return {}


def prefixes_from_prompts(prompts: Mapping[str, str]) -> Mapping[InputType, str]:
    """The prefixes among a model's own `prompts`, by the usual names for each input type."""
    found = {}
    for kind, names in _NAMES.items():
        for name in names:
            if prompts.get(name):
                found[kind] = prompts[name]
                break
    return found


class PrefixStep:
    """A pipeline step that adds the prefix of the call's input type to each text.

    A text that already starts with one of the model's prefixes is not changed: some clients add them themselves.
    Neither is a call without an input type, or with a prompt name for the server.
    """

    def __init__(self, handler: Handler, prefixes: Mapping[InputType, str]) -> None:
        self._handler = handler
        self._prefixes = dict(prefixes)
        self._known = tuple(filter(None, prefixes.values()))

    async def __call__(self, call: Call) -> Result:
        if isinstance(call, Embed) and call.prompt_name is None and call.input_type is not None:
            # The input type has no further effect: without it, calls with equal texts can be joined and cached.
            call = replace(call, texts=self.add_prefixes(call.texts, call.input_type), input_type=None)
        return await self._handler(call)

    def add_prefixes(self, texts: Sequence[str], kind: InputType | None) -> Sequence[str]:
        """The texts as the model reads them."""
        prefix = self._prefixes.get(kind) if kind else None
        if not prefix:
            return texts
        return [text if text.startswith(self._known) else prefix + text for text in texts]
