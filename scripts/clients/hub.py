"""huggingface_hub's InferenceClient: synchronous, asynchronous, info, health, and its errors."""

from __future__ import annotations

import asyncio

from expected import (
    ENDPOINTS,
    KEY,
    PROMPT,
    TEXTS,
    URL,
    check_refused,
    check_same,
    check_text,
    passed,
    version_of,
)
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

version_of("huggingface_hub")


async def embed_asynchronously(endpoint: str) -> None:
    """One call."""
    client = AsyncInferenceClient(base_url=f"{URL}/hf/{endpoint}", api_key=KEY)
    check_same(endpoint, (await client.feature_extraction(TEXTS)).tolist(), "AsyncInferenceClient")


for name in ENDPOINTS:
    hub = InferenceClient(base_url=f"{URL}/hf/{name}", api_key=KEY)
    check_same(name, hub.feature_extraction(TEXTS).tolist(), "feature_extraction")
    one = hub.feature_extraction(TEXTS[0], normalize=True, truncate=True)
    assert one.ndim == 2, one.shape
    check_same(name, [*one.tolist(), *hub.feature_extraction(TEXTS[1:]).tolist()], "one string")
    asyncio.run(embed_asynchronously(name))
    without_header = InferenceClient(base_url=f"{URL}/k/{KEY}/hf/{name}")
    check_same(name, without_header.feature_extraction(TEXTS).tolist(), "key in the path")
    tei = InferenceClient(f"{URL}/hf/{name}", provider="hf-inference", token=KEY)
    assert tei.get_endpoint_info()["served_model_name"] == name
    assert tei.health_check()
    passed(f"get_endpoint_info, health_check [{name}]")

unknown = InferenceClient(base_url=f"{URL}/hf/none", api_key=KEY)
check_refused(lambda: unknown.feature_extraction("one"), HfHubHTTPError, "No endpoint is named [none]")

writer = InferenceClient(base_url=f"{URL}/hf/llm", api_key=KEY)
check_text(writer.text_generation(PROMPT), "text_generation")
told = list(writer.text_generation(PROMPT, stream=True, details=True))
check_text(told[-1].generated_text, "text_generation(stream=True, details=True)")
check_text("".join(event.token.text for event in told if not event.token.special), "its tokens")
messages = [{"role": "user", "content": PROMPT}]
check_text(writer.chat_completion(messages).choices[0].message.content, "chat_completion")
chunks = [chunk for chunk in writer.chat_completion(messages, stream=True) if chunk.choices]
check_text("".join(chunk.choices[0].delta.content or "" for chunk in chunks), "chat_completion(stream=True)")
