"""A gateway in front of generation and rerank servers, for real clients."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from lookalikes import LookAlike, lookalike
from running_gateway import RunningGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubgate.settings import Settings

SAID = "You said: good morning"
PROMPT = "good morning"
KINDS = {
    "vllm": ("vllm", "llm", "chat_completion"),
    "text": ("vllm", "base", "completion"),
    "tgi": ("tgi", "llm", "completion"),
    "llamacpp": ("llamacpp", "llm", "chat_completion"),
    "transformers": ("transformers", "llm", "conversational"),
    "toolkit": ("toolkit", "llm", "text-generation"),
    "t5": ("toolkit", "text2text", "text2text-generation"),
    "ranker": ("tei", "reranker", "rerank"),
    "infinity-ranker": ("infinity", "reranker", "rerank"),
    "sparse": ("tei", "sparse", "sparse_embedding"),
}
"""Endpoints by name: server, kind of model, task in the words of Elasticsearch or Hugging Face."""


@contextmanager
def gateway_with(settings: Settings, *names: str) -> Iterator[tuple[RunningGateway, dict[str, LookAlike]]]:
    """A gateway with some of the endpoints above, and a fake one that embeds; and their servers."""
    with ExitStack() as stack:
        servers = {}
        for name in names:
            engine, kind, _ = KINDS[name]
            servers[name] = stack.enter_context(lookalike(engine, kind=kind))
        gateway = stack.enter_context(RunningGateway(settings))
        gateway.add("fake", dimensions=8)
        for name in names:
            gateway.add(name, url=servers[name].url, task=KINDS[name][2])
        yield gateway, servers
