"""langchain-huggingface. Its embeddings refuse a URL as their model, so they are given the client to use.

Its models that write send no key to another host than Hugging Face's: there it stands in the path.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from expected import ENDPOINTS, KEY, PROMPT, TEXTS, URL, check_same, check_text, version_of
from huggingface_hub import AsyncInferenceClient, InferenceClient
from langchain_huggingface import (  # type: ignore[import-not-found]
    ChatHuggingFace,
    HuggingFaceEndpoint,
    HuggingFaceEndpointEmbeddings,
)

version_of("langchain-huggingface", "huggingface_hub")

for name in ENDPOINTS:
    base = f"{URL}/hf/{name}"
    embeddings = HuggingFaceEndpointEmbeddings(model="org/model", huggingfacehub_api_token=KEY)
    embeddings.client = InferenceClient(base_url=base, api_key=KEY)
    embeddings.async_client = AsyncInferenceClient(base_url=base, api_key=KEY)
    check_same(name, embeddings.embed_documents(TEXTS), "embed_documents")
    check_same(name, [embeddings.embed_query(text) for text in TEXTS], "embed_query")
    check_same(name, asyncio.run(embeddings.aembed_documents(TEXTS)), "aembed_documents")
    # What it does with a model of another host: no key is sent, so the key must stand in the path.
    embeddings.client = InferenceClient(base_url=f"{URL}/k/{KEY}/hf/{name}")
    check_same(name, embeddings.embed_documents(TEXTS), "key in the path")

writer = HuggingFaceEndpoint(endpoint_url=f"{URL}/k/{KEY}/hf/llm", huggingfacehub_api_token=KEY)
check_text(writer.invoke(PROMPT), "HuggingFaceEndpoint")
check_text("".join(writer.stream(PROMPT)), "HuggingFaceEndpoint, streamed")
chat = ChatHuggingFace(llm=writer, model_id="org/model")
check_text(chat.invoke(PROMPT).content, "ChatHuggingFace")
check_text("".join(chunk.content for chunk in chat.stream(PROMPT)), "ChatHuggingFace, streamed")

# The snippet of the user guide, on the endpoint that writes here.
guide = (Path(__file__).parents[2] / "docs" / "guide.en.md").read_text("utf-8")
(snippet,) = re.findall(r"```python\n(from langchain_huggingface .*?)```", guide, re.DOTALL)
written = {
    "http://127.0.0.1:8080": URL,
    "YOUR_HUBGATE_KEY": KEY,
    "/hf/chat": "/hf/llm",
    "Good morning": PROMPT,
}
for placeholder, real in written.items():
    snippet = snippet.replace(placeholder, real)
with redirect_stdout(StringIO()) as printed:
    exec(compile(snippet, "guide.en.md", "exec"), {})  # noqa: S102 - the guide is ours
check_text(printed.getvalue().strip(), "the guide's snippet")
