"""The container images that hubgate asks for, engine by engine.

The API requires the URL of an image, so a table of them cannot be avoided. Each is a version, never `latest`, and can be
replaced with `--image`. The tags were last looked up in the documents of each engine on 2026-11-22.
"""

from __future__ import annotations

from collections.abc import Mapping

from hubgate.domain.deployments import Hardware, Image
from hubgate.domain.endpoint import Engine

_TEI = "ghcr.io/huggingface/text-embeddings-inference"
_TEI_TAGS: Mapping[str, str] = {
    "nvidia-t4": "turing-1.9",
    "nvidia-a100": "1.9",
    "nvidia-a10g": "86-1.9",
    "nvidia-l4": "89-1.9",
    "nvidia-l40s": "89-1.9",
    "nvidia-h100": "hopper-1.9",
    "nvidia-h200": "hopper-1.9",
}
"""By instance type: an image of text-embeddings-inference runs on one generation of GPUs only."""
_VLLM = "vllm/vllm-openai:v0.23.0"
_SGLANG = "lmsysorg/sglang:v0.5.17"
_LLAMACPP = {"cpu": "ghcr.io/ggml-org/llama.cpp:server-b11206"}
_LLAMACPP["gpu"] = "ghcr.io/ggml-org/llama.cpp:server-cuda-b11206"

VARIANTS: Mapping[Engine, str] = {
    Engine.TEI: "tei",
    Engine.VLLM: "vLLM",
    Engine.SGLANG: "sGLang",
    Engine.LLAMACPP: "llamacpp",
    Engine.TOOLKIT: "huggingface",
}
"""The engines that hubgate can deploy, and their keys of `model.image`."""


def default_image(engine: Engine, hardware: Hardware) -> Image | None:
    """The image of an engine for some hardware; `None` if there is none that runs there."""
    kind, variant = hardware.accelerator, VARIANTS.get(engine)
    if variant is None or kind not in {"cpu", "gpu"}:
        return None
    if engine is Engine.TOOLKIT:
        return Image(variant=variant)
    url, port = _address(engine, hardware)
    return Image(variant=variant, url=url, port=port, health_route="/health") if url else None


def own_image(engine: Engine | None, url: str, port: int | None = None) -> Image:
    """An image that the operator names, with the port of its engine unless another is given."""
    if engine is None or engine not in _PORTS:
        return Image(variant="custom", url=url, port=port or 80, health_route="/health")
    return Image(variant=VARIANTS[engine], url=url, port=port or _PORTS[engine], health_route="/health")


_PORTS: Mapping[Engine, int] = {
    Engine.TEI: 80,
    Engine.VLLM: 8000,
    Engine.SGLANG: 30000,
    Engine.LLAMACPP: 8080,
}


def _address(engine: Engine, hardware: Hardware) -> tuple[str | None, int]:
    kind, port = hardware.accelerator, _PORTS[engine]
    if engine is Engine.TEI:
        tag = "cpu-1.9" if kind == "cpu" else _TEI_TAGS.get(hardware.instance_type)
        return (f"{_TEI}:{tag}" if tag else None), port
    if engine is Engine.LLAMACPP:
        return _LLAMACPP[kind], port
    url = {Engine.VLLM: _VLLM, Engine.SGLANG: _SGLANG}[engine]
    return (url if kind == "gpu" else None), port
