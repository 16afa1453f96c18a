"""One local model gives the same vectors through every API."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING

import openai
from huggingface_hub import InferenceClient
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

if TYPE_CHECKING:
    from running_gateway import RunningGateway

NAME = "all-minilm-l6-v2"
TEXTS = ["The gate opens at dawn.", "门在黎明时打开。", "دروازه در سپیده‌دم باز می‌شود."]


def test_every_client_receives_the_same_vectors(local_gateway: RunningGateway) -> None:
    url, key = local_gateway.url, local_gateway.admin_key
    raw = local_gateway.request("POST", f"/hf/{NAME}", {"inputs": TEXTS}).json()
    reference = [[struct.unpack("<f", struct.pack("<f", number))[0] for number in vector] for vector in raw]
    assert [len(vector) for vector in reference] == [384] * 3

    with openai.OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        created = client.embeddings.create(model=NAME, input=TEXTS)
    assert [one.embedding for one in created.data] == reference

    hub = InferenceClient(base_url=f"{url}/hf/{NAME}", api_key=key)
    assert hub.feature_extraction(TEXTS).tolist() == reference

    langchain = OpenAIEmbeddings(
        base_url=f"{url}/v1", api_key=SecretStr(key), model=NAME, check_embedding_ctx_length=False
    )
    assert langchain.embed_documents(TEXTS) == reference

    elastic = local_gateway.request("POST", f"/_inference/text_embedding/{NAME}", {"input": TEXTS}).json()
    given = [entry["embedding"] for entry in elastic["text_embedding"]]
    assert [[struct.unpack("<f", struct.pack("<f", n))[0] for n in vector] for vector in given] == reference


def test_truncated_text_is_reported(local_gateway: RunningGateway) -> None:
    body = {"model": NAME, "input": ["short", "word " * 600]}
    reply = local_gateway.request("POST", "/v1/embeddings", body)
    assert reply.headers["x-hubgate-truncated"] == "1"
    usage = reply.json()["usage"]
    assert usage == {"prompt_tokens": 3 + 256, "total_tokens": 3 + 256, "truncated_inputs": 1}
    native = local_gateway.request("POST", f"/hf/{NAME}", {"inputs": body["input"]})
    assert native.headers["x-hubgate-truncated"] == "1"


def test_too_long_text_is_rejected_when_truncation_is_off(
    local_gateway: RunningGateway,
) -> None:
    reply = local_gateway.request("POST", f"/hf/{NAME}", {"inputs": "word " * 600, "truncate": False})
    assert (reply.status, reply.json()["error_type"]) == (413, "Validation")


def test_tokens_match_tei_with_offsets_into_text(local_gateway: RunningGateway) -> None:
    [tokens] = local_gateway.request("POST", f"/hf/{NAME}/tokenize", {"inputs": "hello gate"}).json()
    assert [token["text"] for token in tokens] == ["[CLS]", "hello", "gate", "[SEP]"]
    assert [(token["start"], token["stop"]) for token in tokens] == [
        (None, None),
        (0, 5),
        (6, 10),
        (None, None),
    ]
    assert [token["special"] for token in tokens] == [True, False, False, True]


def test_base64_has_exact_float32_values_of_the_model(local_gateway: RunningGateway) -> None:
    body = {"model": NAME, "input": TEXTS[0]}
    packed = local_gateway.request("POST", "/v1/embeddings", {**body, "encoding_format": "base64"}).json()
    floats = local_gateway.request("POST", "/v1/embeddings", body).json()["data"][0]["embedding"]
    assert base64.b64decode(packed["data"][0]["embedding"]) == struct.pack(f"<{len(floats)}f", *floats)
