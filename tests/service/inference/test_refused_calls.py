"""A call that its server refuses keeps no other one from being sent, over sockets."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes.server import lookalike

if TYPE_CHECKING:
    from running_gateway import RunningGateway

PATHS = {
    "chat_completion": ("llm", "/v1/chat/completions", "messages"),
    "completion": ("llm", "/v1/completions", "prompt"),
    "text_embedding": ("embedding", "/v1/embeddings", "input"),
    "rerank": ("reranker", "/v1/rerank", "query"),
}


def body(field: str, text: str) -> dict[str, Any]:
    value = [{"role": "user", "content": text}] if field == "messages" else text
    more = {"documents": ["b"]} if field == "query" else {}
    return {"model": "one", field: value, **more}


@pytest.mark.parametrize("task", PATHS)
def test_refused_call_leaves_the_only_place_to_another_until_its_next_try(
    gateway: RunningGateway, task: str
) -> None:
    kind, path, field = PATHS[task]
    with lookalike("vllm", kind=kind) as server, ThreadPoolExecutor() as threads:
        gateway.add("one", url=server.url, task=task, rate_limit={"max_concurrent_requests": 1})
        before = len(server.posts)
        server.fail("too-many", times=1)  # with a Retry-After of 7 s
        refused = threads.submit(gateway.request, "POST", path, body(field, "first"))
        server.wait_until(lambda seen: len(seen.posts) > before)
        assert gateway.request("POST", path, body(field, "second")).status == 200
        assert refused.result(240).status == 200
        asked = [json.dumps(post.json) for post in server.posts[before:]]
        assert ["first" in each for each in asked] == [True, False, True]
