"""What a request to embed says, in the words of each family of routes."""

from __future__ import annotations

from hubgate.domain.calls import Embed


def tei(call: Embed, model: str | None) -> dict[str, object]:  # noqa: ARG001 - TEI serves one model
    """`POST /embed`. Too long texts are cut unless the caller forbids it, whatever the server's own default."""
    body: dict[str, object] = {"inputs": list(call.texts), "truncate": call.truncate is not False}
    if call.truncate_left:
        body["truncation_direction"] = "Left"
    for name in ("normalize", "prompt_name", "dimensions"):
        value = getattr(call, name)
        if value is not None:
            body[name] = value
    return body


def openai(call: Embed, model: str | None) -> dict[str, object]:
    """`POST /v1/embeddings`. Base64 costs the gate a tenth of the floats; who cannot send it sends floats."""
    body: dict[str, object] = {"model": model} if model else {}
    body |= {"input": list(call.texts), "encoding_format": "base64"}
    if call.dimensions is not None:
        body["dimensions"] = call.dimensions
    return body


def openai_floats(call: Embed, model: str | None) -> dict[str, object]:
    """The same for who may not know of base64."""
    body = openai(call, model)
    del body["encoding_format"]
    return body


def hf_inference(call: Embed, model: str | None) -> dict[str, object]:
    """Hugging Face's own provider: what TEI takes, with the direction in small letters."""
    body = tei(call, model)
    if call.truncate_left:
        body["truncation_direction"] = "left"
    return body


def vllm(call: Embed, model: str | None) -> dict[str, object]:
    """OpenAI's route; vLLM refuses what is too long unless it is told to cut at the model's limit."""
    body = openai(call, model)
    if call.truncate is not False:
        body["truncate_prompt_tokens"] = -1
    return body


def toolkit(call: Embed, model: str | None) -> dict[str, object]:  # noqa: ARG001 - the toolkit serves one model
    """The toolkit's only route. Every option it does not know becomes an error 400, so none is sent."""
    return {"inputs": list(call.texts)}
