"""Python, with the clients that people have."""

from __future__ import annotations

from typing import Any

from hubgate.domain.calls import Chat, Complete, Embed, InputType, Rerank, SparseEmbed
from hubgate.domain.endpoint import Task
from hubgate.web.console.playground.snippet_values import KEY, Use, python, python_call, text

_NOT_OPENAIS = ("top_k", "repetition_penalty")
"""What engines know and OpenAI's clients take in `extra_body` alone."""
_NOT_TGIS = ("presence_penalty",)
_ELASTIC_CHAT = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_completion_tokens",
    "stop": "stop",
}
"""What Elasticsearch's chat takes, and what it calls it."""


def openai(use: Use) -> str:
    """The package openai."""
    call = use.call
    begin = f"from openai import OpenAI\n\nclient = OpenAI(base_url={text(use.gate + '/v1')}, api_key={text(KEY)})\n"
    if isinstance(call, Embed):
        asked = {"model": use.model, "input": list(call.texts), **_dimensions(call)}
        return (
            f"{begin}reply = {python_call('client.embeddings.create', asked)}\n"
            "for item in reply.data:\n    print(item.index, item.embedding[:4])\n"
        )
    if isinstance(call, Rerank):
        raw = {"raw_scores": True} if call.raw_scores else {}
        body = {"model": use.model, "query": call.query, "documents": list(call.texts), **raw}
        return (
            f'{begin}reply = client.post("/rerank", cast_to=object, body={python(body, 0)})\n'
            'for item in reply["results"]:\n    print(item["index"], item["relevance_score"])\n'
        )
    if isinstance(call, Chat):
        function, said = "client.chat.completions.create", 'chunk.choices[0].delta.content or ""'
        asked = {"model": use.model, "messages": use.messages}
    else:
        assert isinstance(call, Complete)  # noqa: S101 - it has no weights of words
        function, said = "client.completions.create", "chunk.choices[0].text"
        asked = {"model": use.model, "prompt": call.prompt}
    asked |= {**_with_extra_body(use.parameters), "stream": True}
    return (
        f"{begin}stream = {python_call(function, asked)}\n"
        "for chunk in stream:\n    if chunk.choices:\n"
        f'        print({said}, end="", flush=True)\nprint()\n'
    )


def elasticsearch(use: Use) -> str:
    """The package elasticsearch."""
    call, name = use.call, use.endpoint.name
    begin = (
        "from elasticsearch import Elasticsearch\n\n"
        f"client = Elasticsearch({text(use.gate_with_port)}, api_key={text(KEY)})\n"
    )
    if isinstance(call, Embed):
        kind = {"input_type": call.input_type.value} if call.input_type else {}
        asked = {"inference_id": name, "input": list(call.texts), **kind}
        return (
            f"{begin}reply = {python_call('client.inference.text_embedding', asked)}\n"
            'for item in reply["text_embedding"]:\n    print(item["embedding"][:4])\n'
        )
    if isinstance(call, SparseEmbed):
        asked = {"inference_id": name, "input": list(call.texts)}
        return (
            f"{begin}reply = {python_call('client.inference.sparse_embedding', asked)}\n"
            'for item in reply["sparse_embedding"]:\n    print(item["embedding"])\n'
        )
    if isinstance(call, Rerank):
        asked = {"inference_id": name, "query": call.query, "input": list(call.texts)}
        return (
            f"{begin}reply = {python_call('client.inference.rerank', asked)}\n"
            'for item in reply["rerank"]:\n    print(item["index"], item["relevance_score"])\n'
        )
    return _elasticsearch_writes(use, begin)


def huggingface_hub(use: Use) -> str:
    """The package huggingface_hub."""
    call = use.call
    begin = (
        "from huggingface_hub import InferenceClient\n\n"
        f"client = InferenceClient(base_url={text(use.base)}, api_key={text(KEY)})\n"
    )
    if isinstance(call, Embed):
        given = "".join(f", {name}={value}" for name, value in _dimensions(call).items())
        return f"{begin}vectors = client.feature_extraction({python(list(call.texts), 0)}{given})\nprint(vectors.shape, vectors[:, :4])\n"
    if isinstance(call, Chat):
        asked: dict[str, Any] = {"messages": use.messages, **_with_extra_body(use.parameters), "stream": True}
        return (
            f"{begin}for chunk in {python_call('client.chat_completion', asked)}:\n"
            "    if chunk.choices:\n"
            '        print(chunk.choices[0].delta.content or "", end="", flush=True)\nprint()\n'
        )
    assert isinstance(call, Complete)  # noqa: S101 - it has no ranks and no weights
    parameters = {name: value for name, value in use.parameters.items() if name not in _NOT_TGIS}
    if "max_tokens" in parameters:
        parameters["max_new_tokens"] = parameters.pop("max_tokens")
    asked = {"prompt": call.prompt, **parameters, "stream": True}
    return f'{begin}for piece in {python_call("client.text_generation", asked)}:\n    print(piece, end="", flush=True)\nprint()\n'


def langchain(use: Use) -> str:
    """The package langchain-openai."""
    call = use.call
    where = {"base_url": f"{use.gate}/v1", "api_key": KEY, "model": use.model}
    if isinstance(call, Embed):
        # LangChain would send token ids else, which mean something to one tokenizer only.
        made = python_call(
            "OpenAIEmbeddings", {**where, **_dimensions(call), "check_embedding_ctx_length": False}
        )
        begin = f"from langchain_openai import OpenAIEmbeddings\n\nembeddings = {made}\n"
        if call.input_type is InputType.SEARCH:
            return f"{begin}vector = embeddings.embed_query({text(call.texts[0])})\nprint(vector[:4])\n"
        texts = python(list(call.texts), 0)
        return f"{begin}vectors = embeddings.embed_documents({texts})\nprint([vector[:4] for vector in vectors])\n"
    kind, said = ("ChatOpenAI", "piece.content") if isinstance(call, Chat) else ("OpenAI", "piece")
    parameters = _with_extra_body(use.parameters)
    stop = parameters.pop("stop", None)
    asked = use.messages if isinstance(call, Chat) else call.prompt if isinstance(call, Complete) else ""
    stopped = f", stop={python(stop, 0)}" if stop else ""
    return (
        f"from langchain_openai import {kind}\n\nllm = {python_call(kind, where | parameters)}\n"
        f'for piece in llm.stream({python(asked, 0)}{stopped}):\n    print({said}, end="", flush=True)\nprint()\n'
    )


def _elasticsearch_writes(use: Use, begin: str) -> str:
    if use.endpoint.task is Task.COMPLETION:
        asked = {"inference_id": use.endpoint.name, "input": use.messages[-1]["content"]}
        return (
            f"{begin}reply = {python_call('client.inference.completion', asked)}\n"
            'print(reply["completion"][0]["result"])\n'
        )
    parameters = {
        name: use.parameters[ours] for ours, name in _ELASTIC_CHAT.items() if ours in use.parameters
    }
    asked = {
        "headers": {"content-type": "application/json", "accept": "text/event-stream"},
        "body": {"messages": use.messages, **parameters},
    }
    path = f"/_inference/chat_completion/{use.endpoint.name}/_stream"
    return (
        f"import json\n\n{begin}reply = {python_call('client.perform_request', asked, before=('POST', path))}\n"
        'for line in reply.body.split("\\n"):\n'
        '    if line.startswith("data: {"):\n'
        '        for choice in json.loads(line[6:])["choices"]:\n'
        '            print(choice["delta"].get("content", ""), end="")\nprint()\n'
    )


def _dimensions(call: Embed) -> dict[str, int]:
    return {"dimensions": call.dimensions} if call.dimensions else {}


def _with_extra_body(parameters: dict[str, Any]) -> dict[str, Any]:
    extra = {name: parameters.pop(name) for name in _NOT_OPENAIS if name in parameters}
    return {**parameters, "extra_body": extra} if extra else parameters
