"""curl and JavaScript."""

from __future__ import annotations

import shlex
from typing import Any

from hubgate.domain.calls import Chat, Complete, Embed, Rerank
from hubgate.web.console.playground.snippet_values import KEY, Use, json_block, text

_READ_STREAM = """\
let said = "";
let rest = "";
for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + part).split("\\n");
  rest = lines.pop();
  for (const line of lines) {
    if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
    const event = JSON.parse(line.slice(6));
    if (event.error) throw new Error(event.error.message);
    said += event.choices[0]?.%s ?? "";
  }
}
console.log(said);
"""
_SHOWN = {
    "embed": "console.log(reply.data.map((item) => item.embedding.slice(0, 4)));",
    "rerank": "console.log(reply.results);",
    "sparse": "console.log(reply.sparse_embedding.map((item) => item.embedding));",
}


def curl(use: Use) -> str:
    """For a shell. The body is a here-document, in which every character stands for itself."""
    path, body, streamed = _request(use)
    return (
        f"curl -sS{'N' if streamed else ''} {shlex.quote(use.gate + path)} \\\n"
        f"  -H 'Authorization: Bearer {KEY}' \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d @- <<'JSON'\n{json_block(body)}\nJSON\n"
    )


def fetch(use: Use) -> str:
    """JavaScript with nothing but what browsers and Node have."""
    path, body, streamed = _request(use)
    asked = (
        f"const response = await fetch({text(use.gate + path)}, {{\n"
        '  method: "POST",\n'
        f'  headers: {{ Authorization: "Bearer {KEY}", "Content-Type": "application/json" }},\n'
        f"  body: JSON.stringify({_indented(json_block(body))}),\n"
        "});\n"
        "if (!response.ok) throw new Error(await response.text());\n"
    )
    if streamed:
        return asked + _READ_STREAM % ("delta?.content" if isinstance(use.call, Chat) else "text")
    return f"{asked}const reply = await response.json();\n{_SHOWN[_kind(use)]}\n"


def huggingface_js(use: Use) -> str:
    """Hugging Face's own client for JavaScript."""
    call = use.call
    asked: dict[str, Any]
    begin = (
        'import { InferenceClient } from "@huggingface/inference";\n\n'
        f'const client = new InferenceClient("{KEY}", {{ endpointUrl: {text(use.base)} }});\n'
    )
    if isinstance(call, Embed):
        asked = {"inputs": list(call.texts)} | ({"dimensions": call.dimensions} if call.dimensions else {})
        return (
            f"{begin}const vectors = await client.featureExtraction({json_block(asked)});\n"
            "console.log(vectors.map((vector) => vector.slice(0, 4)));\n"
        )
    if isinstance(call, Chat):
        asked = {"messages": use.messages, **use.parameters}
        return (
            f"{begin}for await (const chunk of client.chatCompletionStream({json_block(asked)})) {{\n"
            '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");\n}\n'
        )
    assert isinstance(call, Complete)  # noqa: S101 - it has no other task of the gate's
    parameters = use.parameters
    if "max_tokens" in parameters:
        parameters["max_new_tokens"] = parameters.pop("max_tokens")
    asked = {"inputs": call.prompt, "parameters": parameters}
    return (
        f"{begin}const reply = await client.textGeneration({json_block(asked)});\n"
        "console.log(reply.generated_text);\n"
    )


def _request(use: Use) -> tuple[str, dict[str, Any], bool]:
    """The path, the body, and whether the answer is a stream."""
    call = use.call
    if isinstance(call, Embed):
        short = {"dimensions": call.dimensions} if call.dimensions else {}
        return "/v1/embeddings", {"model": use.model, "input": list(call.texts), **short}, False
    if isinstance(call, Rerank):
        raw = {"raw_scores": True} if call.raw_scores else {}
        return (
            "/v1/rerank",
            {"model": use.model, "query": call.query, "documents": list(call.texts), **raw},
            False,
        )
    if isinstance(call, Chat):
        body = {"model": use.model, "messages": use.messages, **use.parameters, "stream": True}
        return "/v1/chat/completions", body, True
    if isinstance(call, Complete):
        body = {"model": use.model, "prompt": call.prompt, **use.parameters, "stream": True}
        return "/v1/completions", body, True
    return f"/_inference/sparse_embedding/{use.model}", {"input": list(call.texts)}, False


def _kind(use: Use) -> str:
    return "embed" if isinstance(use.call, Embed) else "rerank" if isinstance(use.call, Rerank) else "sparse"


def _indented(block: str) -> str:
    """No line of a JSON block is inside a text: those have their line breaks escaped."""
    return block.replace("\n", "\n  ")
