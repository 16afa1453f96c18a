"""What a model fits on: hardware, container images and prices.

The API requires the URL of an image, so a table of them cannot be avoided. Each is a version, never `latest`, and can be
replaced with `--image`. The tags were last looked up in the documents of each engine on 2026-11-22. The API of Inference
Endpoints has no price: it is joined from the list of hardware.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hubgate.domain.endpoint import GENERATION_TASKS, Engine, Task
from hubgate.domain.hub import Deployment, ModelCard
from hubgate.features.deployments.model import BILLED, Fit, Hardware, HardwareStatus, Image, Misfit, Recipe

_TEI_TASKS = frozenset({Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING, Task.RERANK})
TEI_ARCHITECTURES = frozenset(
    {
        "bert",
        "camembert",
        "deberta-v2",
        "distilbert",
        "gemma3_text",
        "gte",
        "mistral",
        "modernbert",
        "mpnet",
        "new",
        "nomic_bert",
        "qwen2",
        "qwen3",
        "roberta",
        "xlm-roberta",
    }
)
"""The values of `model_type` that text-embeddings-inference 1.9 documents. `new` is Alibaba's GTE."""
_BYTES_PER_PARAMETER = {
    (Engine.TEI, "cpu"): 4.0,
    (Engine.TOOLKIT, "cpu"): 4.0,
    (Engine.LLAMACPP, "cpu"): 1.1,
    (Engine.LLAMACPP, "gpu"): 1.1,
}
"""Of the weights in memory: 32 bits on CPUs, 8 bits in GGUF files. Otherwise 16 bits."""
_OVERHEAD = 1.2
"""Activations, caches and the program, as a factor of the weights."""
_BASE_GB = 0.5
_USABLE = frozenset({HardwareStatus.AVAILABLE, HardwareStatus.LOW_AVAILABILITY, HardwareStatus.UNKNOWN})


class EngineChoice(NamedTuple):
    """An engine, and why it was chosen."""

    engine: Engine
    why: str


def choose_engine(card: ModelCard, task: Task | None, recipes: Sequence[Recipe] = ()) -> EngineChoice:
    """The engine for a model: of Hugging Face's recipe if there is one, otherwise by its task and architecture."""
    recipe = next((one for one in recipes if one.engine is not None), None)
    if recipe is not None and recipe.engine is not None:
        return EngineChoice(
            recipe.engine, f"Hugging Face's catalog has a tested recipe with it ({recipe.id})"
        )
    if card.library == "gguf" or card.name.casefold().endswith("-gguf"):
        return EngineChoice(Engine.LLAMACPP, "its files are GGUF")
    wanted = task or next(iter(card.tasks), None)
    if wanted in _TEI_TASKS:
        if card.model_type is None or card.model_type in TEI_ARCHITECTURES:
            return EngineChoice(Engine.TEI, f"it serves {wanted}")
        return EngineChoice(
            Engine.TOOLKIT, f"text-embeddings-inference does not document its architecture, {card.model_type}"
        )
    if wanted in GENERATION_TASKS:
        return EngineChoice(Engine.VLLM, "it generates text")
    return EngineChoice(Engine.TOOLKIT, "no other engine is known for its task")


def needed_memory(card: ModelCard, engine: Engine, accelerator: str) -> float | None:
    """The memory in GB that a model needs, estimated from its number of parameters; `None` if that is unknown."""
    if card.parameters is None:
        return None
    weights = card.parameters * _BYTES_PER_PARAMETER.get((engine, accelerator), 2.0) / 1e9
    return weights * _OVERHEAD + _BASE_GB


def check_fit(
    card: ModelCard, engine: Engine, hardware: Hardware, *, replicas: int = 1, own_image: bool = False
) -> Fit:
    """Whether a model fits on some hardware.

    Args:
        card: the model.
        engine: what runs it.
        hardware: where.
        replicas: the max replicas, which the quota must allow.
        own_image: whether the operator names an image, which may run anywhere.
    """
    misfit, reason = _misfit(card, engine, hardware, replicas, own_image=own_image)
    return Fit(hardware=hardware, misfit=misfit, reason=reason)


def _misfit(
    card: ModelCard, engine: Engine, hardware: Hardware, replicas: int, *, own_image: bool
) -> tuple[Misfit | None, str]:
    if hardware.status not in _USABLE:
        return Misfit.NOT_AVAILABLE, f"Hugging Face reports it as {hardware.status.replace('_', ' ')}"
    if not own_image and default_image(engine, hardware) is None:
        where = hardware.architecture or hardware.instance_type
        return Misfit.NO_IMAGE, f"hubgate knows no image of {engine} for {where}"
    needed = needed_memory(card, engine, hardware.accelerator)
    available = hardware.gpu_memory_gb if hardware.accelerator == "gpu" else hardware.memory_gb
    if needed is not None and available is not None and needed > available:
        return Misfit.MEMORY, f"it needs about {needed:.1f} GB, and this has {available:g} GB"
    left = hardware.replicas_left
    if left is not None and replicas > left:
        return Misfit.QUOTA, (
            f"the quota allows {left} more replica{'' if left == 1 else 's'}: "
            f"{hardware.used_accelerators} of {hardware.max_accelerators} accelerators are in use"
        )
    return None, ""


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


def hardware_of(deployment: Deployment, hardware: Sequence[Hardware]) -> Hardware | None:
    """What an Inference Endpoint runs on; `None` if it is not offered any more."""
    where, what = deployment.region, deployment.hardware
    return next(
        (
            one
            for one in hardware
            if f"{one.vendor} {one.region}" == where and f"{one.instance_type} {one.instance_size}" == what
        ),
        None,
    )


def cost_now(deployment: Deployment, hardware: Hardware | None) -> float | None:
    """US dollars an hour for the replicas that run now; `None` if the price is unknown."""
    if deployment.state not in BILLED:
        return 0.0
    replicas = deployment.target_replicas
    if replicas is None:
        replicas = max(1, deployment.min_replicas or 0)
    return (
        None if hardware is None else hardware.price_per_hour * max(replicas, deployment.ready_replicas or 0)
    )


def cost_at_most(deployment: Deployment, hardware: Hardware | None) -> float | None:
    """US dollars an hour if all replicas run; 0 while somebody has to resume it; `None` if the price is unknown."""
    if deployment.paused:
        return 0.0
    return None if hardware is None else hardware.price_per_hour * (deployment.max_replicas or 1)
