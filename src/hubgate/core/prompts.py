"""The prefixes that asymmetric models expect before a text.

Each row of the table is a family of models, with the model card that it is from. A model's own prompts win over this
table, and the operator's settings over both. Rows without prefixes are models that are known to need none.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from hubgate.core.models.names import base_name
from hubgate.domain.calls import Call, Embed, Result
from hubgate.domain.endpoint import InputType, PrefixSource
from hubgate.domain.ports import Handler

_SENTENCE = "Represent this sentence for searching relevant passages: "
_WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"


class _Row(NamedTuple):
    pattern: str
    """Matches the whole name as `base_name` returns it, also of Ollama's."""
    query: str
    document: str
    classification: str
    clustering: str
    card: str
    """The repository of the card or the `config_sentence_transformers.json`."""
    is_open: bool = False
    """Whether it is also for longer names, which may be of fine-tunes: see `Prefixes.is_certain`."""


_TABLE = (
    # e5: symmetric tasks and features take `query: ` too.
    _Row(r"multilingual-e5-large-instruct|e5-mistral-7b-instruct", f"{_WEB_SEARCH} ", "", "", "", "intfloat/multilingual-e5-large-instruct", is_open=True),
    _Row(r"(multilingual-)?e5-(small|base|large)(-v2|-unsupervised)?", "query: ", "passage: ", "query: ", "query: ", "intfloat/e5-small-v2"),
    _Row(r"bge-(small|base|large)-zh-noinstruct", "", "", "", "", "BAAI/bge-large-zh-noinstruct"),
    _Row(r"bge-(small|base|large)-zh(-v1\.5)?", "为这个句子生成表示以用于检索相关文章：", "", "", "", "BAAI/bge-large-zh-v1.5", is_open=True),
    _Row(r"bge-(small|base|large)-en(-v1\.5)?", _SENTENCE, "", "", "", "BAAI/bge-large-en-v1.5", is_open=True),
    _Row(r"bge-large(-335m)?", _SENTENCE, "", "", "", "BAAI/bge-large-en-v1.5"),
    _Row(r"mxbai-embed-large(-v1|-335m)?|uae-large-v1", _SENTENCE, "", "", "", "mixedbread-ai/mxbai-embed-large-v1"),
    _Row(r"mxbai-embed-large-v1|uae-large-v1", _SENTENCE, "", "", "", "mixedbread-ai/mxbai-embed-large-v1", is_open=True),
    _Row(r"nomic-embed-text(-v1|-v1\.5|-v2-moe)?|modernbert-embed-base", "search_query: ", "search_document: ", "classification: ", "clustering: ", "nomic-ai/nomic-embed-text-v1.5"),
    _Row(r"snowflake-arctic-embed(-[ml]-v2(\.0)?|2(-568m)?)", "query: ", "", "", "", "Snowflake/snowflake-arctic-embed-l-v2.0", is_open=True),
    _Row(r"snowflake-arctic-embed(-(xs|s|m|l|m-v1\.5|m-long|\d+m))?", _SENTENCE, "", "", "", "Snowflake/snowflake-arctic-embed-m-v1.5", is_open=True),
    _Row(r"gte-qwen2-(1\.5b|7b)-instruct", f"{_WEB_SEARCH} ", "", "", "", "Alibaba-NLP/gte-Qwen2-1.5B-instruct", is_open=True),
    _Row(r"qwen3-embedding(-(0\.6b|4b|8b))?", _WEB_SEARCH, "", "", "", "Qwen/Qwen3-Embedding-0.6B", is_open=True),
    _Row(r"harrier-oss-v1-(270m|0\.6b|27b)", f"{_WEB_SEARCH} ", "", "", "", "microsoft/harrier-oss-v1-0.6b", is_open=True),
    _Row(r"stella_en_(400m|1\.5b)_v5", _WEB_SEARCH.replace("\n", ".\n") + " ", "", "", "", "NovaSearch/stella_en_400M_v5", is_open=True),
    _Row(r"jina-embeddings-v5-text-(small|nano)-retrieval", "Query: ", "Document: ", "", "", "jinaai/jina-embeddings-v5-text-small-retrieval", is_open=True),
    _Row(
        r"jina-embeddings-v3",
        "Represent the query for retrieving evidence documents: ",
        "Represent the document for retrieval: ",
        "",
        "",
        "jinaai/jina-embeddings-v3",
        is_open=True,
    ),
    _Row(
        r"embeddinggemma(-300m|-2)?",
        "task: search result | query: ",
        "title: none | text: ",
        "task: classification | query: ",
        "task: clustering | query: ",
        "google/embeddinggemma-300m",
        is_open=True,
    ),
    _Row(r"all-(minilm|mpnet|distilroberta)|paraphrase|multi-qa|labse", "", "", "", "", "sentence-transformers/all-MiniLM-L6-v2", is_open=True),
    _Row(r"bge-m3", "", "", "", "", "BAAI/bge-m3"),
    _Row(r"gte-(small|base|large)(-en-v1\.5)?|gte-(multilingual|modernbert)-base", "", "", "", "", "Alibaba-NLP/gte-large-en-v1.5"),
    _Row(r"jina-embeddings-v2", "", "", "", "", "jinaai/jina-embeddings-v2-base-en", is_open=True),
)  # fmt: skip

_NAMES: Mapping[InputType, Sequence[str]] = {
    InputType.SEARCH: (
        "query",
        "retrieval.query",
        "search_query",
        "retrieval-query",
        "retrieval_query",
        "web_search_query",
        "s2p_query",
        "s2p",
    ),
    InputType.INGEST: (
        "document",
        "passage",
        "corpus",
        "retrieval.passage",
        "retrieval.document",
        "search_document",
        "retrieval-document",
        "retrieval_document",
        "retrieval-passage",
    ),
    InputType.CLASSIFICATION: ("classification",),
    InputType.CLUSTERING: ("clustering", "separation"),
}
"""The names that models give to the prompt of each input type, in lower case; the first that has a text is used.

sentence-transformers itself knows `query`, `document`, `passage` and `corpus`. It writes the first two into every model
that it saves, empty, so an empty prompt says nothing about the others.
"""


class Prefixes(NamedTuple):
    """The prefix of each input type that has one, and where they are from."""

    texts: dict[InputType, str]
    source: PrefixSource
    family: str = ""
    """The repository that the row of the table is from."""
    is_certain: bool = True
    """Whether the row is for this model, and not for one whose name begins in the same way."""


def find_prefixes(
    model: str | None,
    prompts: Mapping[str, str] | None,
    default_prompt: str | None = None,
    original: str | None = None,
) -> Prefixes:
    """The prefixes that a model needs: from its own prompts, otherwise from the table.

    Args:
        model: the Hub id or the name of the folder.
        prompts: the model's own by name; `None` if they are not known.
        default_prompt: the name of the one that sentence-transformers adds if none is requested.
        original: the Hub id of the model of which this is a copy, whatever the copy is called.
    """
    if own := prefixes_from_prompts(prompts or {}, default_prompt):
        return Prefixes(own, PrefixSource.MODEL)
    names = [base_name(name) for name in (original, model) if name]
    for is_certain, find in ((True, _row), (False, _family)):
        if row := next(filter(None, map(find, names)), None):
            return Prefixes(dict(_prefixes_of(row)), PrefixSource.TABLE, row.card, is_certain)
    return Prefixes({}, PrefixSource.NONE)


def family_prefixes(model: str | None) -> Mapping[InputType, str]:
    """The prefixes of a model's family; empty if unknown. `model` is the Hub id or the name of the folder."""
    return find_prefixes(model, None).texts


def needs_instructions(model: str | None) -> bool:
    """Whether a model expects an instruction for its task and domain before each text: those of INSTRUCTOR."""
    return re.match(r"instructor-(base|large|xl)", base_name(model)) is not None


def _row(name: str) -> _Row | None:
    return next((row for row in _TABLE if re.fullmatch(row.pattern, name)), None)


def _family(name: str) -> _Row | None:
    return next((row for row in _TABLE if row.is_open and re.match(rf"({row.pattern})[-._]", name)), None)


def _prefixes_of(row: _Row) -> Mapping[InputType, str]:
    prefixes = {
        InputType.SEARCH: row.query,
        InputType.INGEST: row.document,
        InputType.CLASSIFICATION: row.classification,
        InputType.CLUSTERING: row.clustering,
    }
    return {kind: prefix for kind, prefix in prefixes.items() if prefix}


def prefixes_from_prompts(
    prompts: Mapping[str, str], default_prompt: str | None = None
) -> dict[InputType, str]:
    """The prefixes among a model's own `prompts`, by the usual names for each input type.

    An input type without a prompt of its own gets the default one, as in sentence-transformers.
    """
    by_name = {name.lower(): text for name, text in prompts.items()}
    default = prompts.get(default_prompt or "", "")
    found = {}
    for kind, names in _NAMES.items():
        named = [by_name[name] for name in names if name in by_name]
        text = next(filter(None, named), "" if named else default)
        if text:
            found[kind] = text
    return found


class PrefixStep:
    """A pipeline step that adds the prefix of the call's input type to each text, or the default one without a type.

    A text that already starts with one of the model's prefixes is not changed: some clients add them themselves.
    Neither is a call with a prompt name for the server.
    """

    def __init__(self, handler: Handler, prefixes: Mapping[InputType, str], default: str = "") -> None:
        self._handler = handler
        self._prefixes = dict(prefixes)
        self._default = default
        self._known = tuple(filter(None, (default, *prefixes.values())))

    def __call__(self, call: Call) -> Coroutine[Any, Any, Result]:
        if isinstance(call, Embed) and call.prompt_name is None and (call.input_type or self._default):
            # The input type has no further effect: without it, calls with equal texts can be joined and cached.
            call = replace(call, texts=self.add_prefixes(call.texts, call.input_type), input_type=None)
        return self._handler(call)

    def add_prefixes(self, texts: Sequence[str], kind: InputType | None) -> Sequence[str]:
        """The texts as the model reads them."""
        prefix = self._prefixes.get(kind) if kind else self._default
        if not prefix:
            return texts
        return [text if text.startswith(self._known) else prefix + text for text in texts]
