"""OpenAI's client against a real gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import openai
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types import CreateEmbeddingResponse
    from running_gateway import RunningGateway


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    """The client, with an endpoint named fake to ask."""
    gateway.add("fake", dimensions=8)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.admin_key) as made:
        yield made


def singles(reply: CreateEmbeddingResponse) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([one.embedding for one in reply.data], np.float32)


def test_base64_and_float_return_the_same_vectors(client: openai.OpenAI) -> None:
    texts = ["one text", "another text"]
    default = client.embeddings.create(model="fake", input=texts)
    floats = client.embeddings.create(model="fake", input=texts, encoding_format="float")
    assert [one.index for one in default.data] == [0, 1]
    # As single precision: numbers have no more digits than that takes.
    assert np.array_equal(singles(default), singles(floats))
    assert all(len(one.embedding) == 8 for one in default.data)
    assert default.model == "fake"
    assert default.usage.prompt_tokens == default.usage.total_tokens == 4


@pytest.mark.parametrize("encoding_format", [{}, {"encoding_format": "float"}])
def test_output_dtype_in_extra_body_returns_integers(
    client: openai.OpenAI, encoding_format: dict[str, Any]
) -> None:
    texts = ["one text", "another text"]
    floats = singles(client.embeddings.create(model="fake", input=texts))
    step = 5 / np.sqrt(8) / 127
    bits = np.packbits(floats > 0, axis=1).astype(int)
    expected = {
        "int8": np.rint(floats / step),
        "uint8": np.rint(floats / step) + 128,
        "binary": bits - 128,
        "ubinary": bits,
    }
    for dtype, vectors in expected.items():
        reply = client.embeddings.create(
            model="fake", input=texts, extra_body={"output_dtype": dtype}, **encoding_format
        )
        assert [one.embedding for one in reply.data] == vectors.tolist()


def test_an_unknown_output_dtype_raises_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"\[output_dtype\] must be one of \[float, int8, "):
        client.embeddings.create(model="fake", input="one", extra_body={"output_dtype": "int4"})


def test_single_string_and_default_dimensions_are_accepted(client: openai.OpenAI) -> None:
    reply = client.embeddings.create(model="fake", input="one", dimensions=8, user="someone")
    assert len(reply.data) == 1


def test_an_input_type_is_read_from_extra_body(client: openai.OpenAI) -> None:
    reply = client.embeddings.create(model="fake", input="one", extra_body={"input_type": "query"})
    assert len(reply.data) == 1


async def test_async_client_works(gateway: RunningGateway) -> None:
    gateway.add("fake")
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.admin_key) as client:
        reply = await client.embeddings.create(model="fake", input=["one", "two"])
    assert len(reply.data) == 2


def test_a_base_url_without_v1_works(gateway: RunningGateway) -> None:
    gateway.add("fake")
    with openai.OpenAI(base_url=gateway.url, api_key=gateway.admin_key) as client:
        assert client.embeddings.create(model="fake", input="one").data
        assert [model.id for model in client.models.list()] == ["fake"]


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [(model.id, model.owned_by) for model in client.models.list()] == [("fake", "hubgate")]
    assert client.models.retrieve("fake").id == "fake"


def test_one_endpoint_has_its_own_base_url(gateway: RunningGateway) -> None:
    gateway.add("fake")
    with openai.OpenAI(base_url=f"{gateway.url}/hf/fake/v1", api_key=gateway.admin_key) as client:
        assert client.embeddings.create(model="whatever", input="one").model == "fake"


def test_errors_have_the_right_class_and_hubgate_message(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"No endpoint is named \[none\]"):
        client.embeddings.create(model="none", input="one")
    with pytest.raises(openai.BadRequestError, match=r"\[input\] is an empty list") as caught:
        client.embeddings.create(model="fake", input=[])
    assert caught.value.code == "invalid_request"
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model="fake", input=[1, 2])
    with pytest.raises(openai.AuthenticationError, match="key"):
        client.with_options(api_key="hg_wrong").embeddings.create(model="fake", input="one")
