"""Dify: the OpenAI-compatible clients of its SDK, and the requests of its plugins for TEI and Hugging Face.

The plugins themselves are on no package registry, so their requests are made here as their source makes them: those of
the TEI plugin, of the Hugging Face plugin, and of the OpenAI plugin with its default, the Responses API.
"""

from __future__ import annotations

import gc
import json
import urllib.request
from typing import TYPE_CHECKING

from dify_models import Embedder, Writer
from dify_plugin.entities.model import (  # type: ignore[import-not-found]
    EmbeddingInputType,
)
from dify_plugin.entities.model.message import (  # type: ignore[import-not-found]
    UserPromptMessage,
)
from expected import ENDPOINTS, KEY, PROMPT, SAID, TEXTS, URL, check_same, passed, version_of
from httpx import StreamClosed
from huggingface_hub import InferenceClient

if TYPE_CHECKING:
    from collections.abc import Iterable

version_of("dify-plugin")
version_of("huggingface_hub")


def post(path: str, body: object) -> object:
    """One request of the TEI plugin."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        answer: object = json.load(reply)
        return answer


def as_the_tei_plugin_asks(endpoint: str) -> None:
    """`/info` to validate, `/tokenize` to cut, `/v1/embeddings` without a model."""
    request = urllib.request.Request(f"{URL}/hf/{endpoint}/info", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        info = json.load(reply)
    assert list(info["model_type"]) == ["embedding"]
    assert int(info.get("max_input_length", 512)) > 0
    batch = int(info["max_client_batch_size"])
    tokens = post(f"/hf/{endpoint}/tokenize", {"inputs": TEXTS})
    assert isinstance(tokens, list)
    assert all({"id", "text", "special", "start", "stop"} == set(token) for text in tokens for token in text)
    vectors = []
    for start in range(0, len(TEXTS), batch):
        reply = post(f"/hf/{endpoint}/v1/embeddings", {"input": TEXTS[start : start + batch]})
        assert isinstance(reply, dict)
        assert reply["usage"]["total_tokens"] > 0
        vectors += [one["embedding"] for one in reply["data"]]
    check_same(endpoint, vectors, "the TEI plugin's requests")


def streams(mode: str) -> None:
    """Text as Dify's nodes ask for it: as a stream, by the provider that the guide names."""
    writer = Writer([])
    settings = {"endpoint_url": f"{URL}/v1", "api_key": KEY, "context_size": "512", "mode": mode}
    writer.validate_credentials("llm", settings)
    said = writer.invoke(
        "llm", settings, [UserPromptMessage(content=PROMPT)], {"max_tokens": 16}, stream=True
    )
    text = "".join(chunk.delta.message.content for chunk in said)
    assert text == SAID, text
    passed(f"stream of a {mode}")


def as_the_openai_plugin_asks() -> None:
    """Whole and streamed; then the items of the response again, with the output of the tool."""
    question = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": PROMPT}]}
    tool = {"type": "function", "name": "note", "description": "d", "parameters": {"type": "object"}}
    asked = {"model": "llm", "store": False, "safety_identifier": "u", "prompt_cache_key": "u"}
    settings = {"max_output_tokens": 16, "temperature": 0.5, "reasoning": {"summary": "auto"}}
    body = {**asked, **settings, "tools": [tool | {"strict": False}], "tool_choice": "auto"}
    first = post("/v1/responses", {**body, "input": [question]})
    assert isinstance(first, dict)
    assert (first["status"], first["error"]) == ("completed", None)
    (call,) = first["output"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": PROMPT}
    second = post("/v1/responses", {**body, "input": [question, call, output]})
    assert isinstance(second, dict)
    assert second["output"][0]["content"][0]["text"] == SAID
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    streaming = json.dumps({**asked, "input": [question], "stream": True}).encode()
    request = urllib.request.Request(f"{URL}/v1/responses", streaming, headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        lines = [line[6:] for line in reply.read().splitlines() if line.startswith(b"data: ")]
    events = [json.loads(line) for line in lines]
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert (text, events[-1]["type"]) == (SAID, "response.completed")
    passed("the OpenAI plugin's requests")


def as_the_hugging_face_plugin_streams() -> Iterable[str]:
    """Its client is a local variable, and gone when the stream is read."""
    client = InferenceClient(base_url=f"{URL}/hf/llm", api_key=KEY)
    stream: Iterable[str] = client.text_generation(PROMPT, stream=True)
    return stream


def check_what_the_guide_says_of_the_hugging_face_plugin() -> None:
    """That no stream comes through, with the huggingface_hub that the plugin pins."""
    stream = as_the_hugging_face_plugin_streams()
    gc.collect()
    try:
        text = "".join(stream)
    except StreamClosed:
        passed("the Hugging Face plugin cannot stream, as the guide says")
        return
    raise AssertionError(f"It streams now ({text!r}): the guide may name this provider again.")


for how in ("chat", "completion"):
    streams(how)
check_what_the_guide_says_of_the_hugging_face_plugin()
as_the_openai_plugin_asks()
for name in ENDPOINTS:
    compatible = Embedder([])
    for base in (f"{URL}/v1", URL):
        settings = {"endpoint_url": base, "api_key": KEY, "context_size": "512", "max_chunks": "32"}
        compatible.validate_credentials(name, settings)
        given = compatible.invoke(name, settings, TEXTS, None, EmbeddingInputType.DOCUMENT)
        check_same(name, given.embeddings, "OpenAI-API-compatible")
    as_the_tei_plugin_asks(name)
