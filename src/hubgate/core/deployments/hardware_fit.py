"""Which engine serves a model, how much memory it needs, and which hardware it fits on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hubgate.core.deployments.images import default_image
from hubgate.domain.deployments import Fit, Hardware, HardwareStatus, Misfit, Recipe
from hubgate.domain.endpoint import GENERATION_TASKS, Engine, Task
from hubgate.domain.hub import ModelCard

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
