"""The engine of a model, the memory that it needs, and the hardware that it fits on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hubgate.domain.endpoint import Engine, Task
from hubgate.domain.hub import ModelCard
from hubgate.features.deployments.fit import (
    VARIANTS,
    check_fit,
    choose_engine,
    default_image,
    needed_memory,
    own_image,
)
from hubgate.features.deployments.model import Hardware, HardwareStatus, Misfit, Recipe
from hubgate.upstreams.engines.specs import engine_of_image

L4 = Hardware(
    id="aws-us-east-1-nvidia-l4-x1",
    vendor="aws",
    region="us-east-1",
    accelerator="gpu",
    instance_type="nvidia-l4",
    instance_size="x1",
    price_per_hour=0.8,
    memory_gb=30,
    gpu_memory_gb=24,
    max_accelerators=4,
    used_accelerators=3,
)
CPU = replace(
    L4, accelerator="cpu", instance_type="intel-spr", instance_size="x2", memory_gb=4, gpu_memory_gb=None
)
NEURON = replace(L4, accelerator="neuron", instance_type="inf2")
E5 = ModelCard(
    name="intfloat/e5-small-v2", tasks=(Task.TEXT_EMBEDDING,), model_type="bert", parameters=33_000_000
)
QWEN = ModelCard(
    name="Qwen/Qwen3-8B", tasks=(Task.CHAT_COMPLETION,), model_type="qwen3", parameters=8_200_000_000
)


@pytest.mark.parametrize(
    ("card", "task", "engine", "why"),
    [
        (E5, None, Engine.TEI, "text_embedding"),
        (replace(E5, model_type=None), Task.RERANK, Engine.TEI, "rerank"),
        (replace(E5, model_type="t5"), None, Engine.TOOLKIT, "t5"),
        (QWEN, None, Engine.VLLM, "generates text"),
        (QWEN, Task.TEXT_EMBEDDING, Engine.TEI, "text_embedding"),
        (replace(QWEN, name="acme/Qwen3-8B-GGUF"), None, Engine.LLAMACPP, "GGUF"),
        (replace(QWEN, library="gguf"), None, Engine.LLAMACPP, "GGUF"),
        (ModelCard(name="acme/sounds"), None, Engine.TOOLKIT, "no other engine"),
    ],
)
def test_the_engine_follows_from_files_task_and_architecture(
    card: ModelCard, task: Task | None, engine: Engine, why: str
) -> None:
    choice = choose_engine(card, task)
    assert choice.engine is engine
    assert why in choice.why


def test_a_tested_recipe_comes_before_hubgates_own_choice() -> None:
    unknown, sglang = (
        Recipe(id=name, repository=QWEN.name, engine=engine, accelerator="gpu")
        for name, engine in (("r0", None), ("r1", Engine.SGLANG))
    )
    assert choose_engine(QWEN, None, [unknown, sglang]).engine is Engine.SGLANG
    assert choose_engine(QWEN, None, [unknown]).engine is Engine.VLLM


def test_memory_is_the_weights_and_a_fifth_more() -> None:
    assert needed_memory(QWEN, Engine.VLLM, "gpu") == pytest.approx(8.2 * 2 * 1.2 + 0.5)
    assert needed_memory(E5, Engine.TEI, "cpu") == pytest.approx(0.033 * 4 * 1.2 + 0.5)
    assert needed_memory(ModelCard(name="acme/unknown"), Engine.VLLM, "gpu") is None


@pytest.mark.parametrize(
    ("card", "engine", "hardware", "misfit", "reason"),
    [
        (E5, Engine.TEI, CPU, None, ""),
        (E5, Engine.TEI, L4, None, ""),
        (QWEN, Engine.VLLM, L4, None, ""),
        (QWEN, Engine.VLLM, CPU, Misfit.NO_IMAGE, "no image of vllm"),
        (E5, Engine.TEI, NEURON, Misfit.NO_IMAGE, "no image of tei"),
        (E5, Engine.TEI, replace(L4, instance_type="nvidia-v100"), Misfit.NO_IMAGE, "nvidia-v100"),
        (replace(QWEN, parameters=14 * 10**9), Engine.VLLM, L4, Misfit.MEMORY, "34.1 GB, and this has 24 GB"),
        (replace(QWEN, parameters=None), Engine.VLLM, L4, None, ""),
        (E5, Engine.TEI, replace(L4, used_accelerators=4), Misfit.QUOTA, "0 more replicas: 4 of 4"),
        (E5, Engine.TEI, replace(L4, max_accelerators=None), None, ""),
        (
            E5,
            Engine.TEI,
            replace(L4, status=HardwareStatus.NOT_AVAILABLE),
            Misfit.NOT_AVAILABLE,
            "not available",
        ),
        (E5, Engine.TEI, replace(L4, status=HardwareStatus.DEPRECATED), Misfit.NOT_AVAILABLE, "deprecated"),
    ],
)
def test_what_does_not_fit_has_a_reason(
    card: ModelCard, engine: Engine, hardware: Hardware, misfit: Misfit | None, reason: str
) -> None:
    fit = check_fit(card, engine, hardware)
    assert fit.misfit is misfit
    assert reason in fit.reason


def test_the_quota_must_allow_the_max_replicas() -> None:
    assert check_fit(E5, Engine.TEI, L4, replicas=1).misfit is None
    assert check_fit(E5, Engine.TEI, L4, replicas=2).misfit is Misfit.QUOTA
    eight = replace(L4, accelerators=8, max_accelerators=20, used_accelerators=0)
    assert eight.replicas_left == 2


def test_an_image_of_the_operator_may_run_anywhere() -> None:
    assert check_fit(E5, Engine.TEI, NEURON, own_image=True).misfit is None
    assert own_image(Engine.VLLM, "me/vllm:1").port == 8000
    assert own_image(Engine.VLLM, "me/vllm:1", 9).port == 9
    assert own_image(None, "me/my:1").variant == "custom"
    assert own_image(Engine.TOOLKIT, "me/my:1").variant == "custom"


@pytest.mark.parametrize("engine", VARIANTS)
@pytest.mark.parametrize("hardware", [CPU, L4], ids=["cpu", "gpu"])
def test_every_image_names_a_version_and_is_recognised_as_its_engine(
    engine: Engine, hardware: Hardware
) -> None:
    image = default_image(engine, hardware)
    if image is None:
        assert (engine, hardware) in {(Engine.VLLM, CPU), (Engine.SGLANG, CPU)}
        return
    assert engine_of_image(image.variant, image.url) is engine
    if image.url:
        tag = image.url.rpartition(":")[2]
        assert any(letter.isdigit() for letter in tag)
        assert "latest" not in image.url
