"""langchain-openai against a real gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

if TYPE_CHECKING:
    from running_gateway import RunningGateway


@pytest.fixture
def embeddings(gateway: RunningGateway) -> OpenAIEmbeddings:
    """Its embeddings, with an endpoint named fake to ask."""
    gateway.add("fake", dimensions=8)
    return OpenAIEmbeddings(
        base_url=f"{gateway.url}/v1",
        api_key=SecretStr(gateway.admin_key),
        model="fake",
        check_embedding_ctx_length=False,
    )


def test_documents_and_queries_are_embedded(embeddings: OpenAIEmbeddings) -> None:
    documents = embeddings.embed_documents(["one text", "another"])
    assert [len(vector) for vector in documents] == [8, 8]
    assert embeddings.embed_query("one text") == documents[0]


async def test_documents_and_queries_are_embedded_asynchronously(gateway: RunningGateway) -> None:
    gateway.add("fake", dimensions=8)
    async with openai.DefaultAsyncHttpxClient() as connections:
        embeddings = OpenAIEmbeddings(
            base_url=f"{gateway.url}/v1",
            api_key=SecretStr(gateway.admin_key),
            model="fake",
            check_embedding_ctx_length=False,
            http_async_client=connections,
        )
        assert len(await embeddings.aembed_query("one text")) == 8


def test_default_dimensions_may_be_requested(gateway: RunningGateway) -> None:
    gateway.add("fake", dimensions=8)
    embeddings = OpenAIEmbeddings(
        base_url=gateway.url,
        api_key=SecretStr(gateway.admin_key),
        model="fake",
        dimensions=8,
        check_embedding_ctx_length=False,
    )
    assert len(embeddings.embed_query("one text")) == 8


def test_errors_show_hubgate_message(embeddings: OpenAIEmbeddings) -> None:
    with pytest.raises(openai.BadRequestError, match=r"\[input\[1\]\] is an empty string"):
        embeddings.embed_documents(["one", ""])
