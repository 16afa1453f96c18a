"""The facts of a local model, read from its files, and a check that a known model computes the vectors that it should."""

from __future__ import annotations

import hashlib
import importlib.util
from array import array
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

from hubgate.domain.endpoint import GENERATION_TASKS, Engine, Facts, Precision, Target, Task
from hubgate.domain.errors import Cause, InvalidEndpoint, RuntimeFailed
from hubgate.runtime.generation.spec import read_generation_spec
from hubgate.runtime.model.heads import EmbeddingHead, RankingHead
from hubgate.runtime.model.spec import ModelSpec, read_model_spec
from hubgate.upstreams.local.files import COMMIT, find_model, in_model_folder

_HASH_TIMEOUT_SECONDS = 600.0
"""For hashing the weights, which can be gigabytes."""
_RUNTIME = ("numpy", "openvino", "tokenizers")
_GENERATION = "openvino_genai"

REFERENCE_TEXT = "hello"
REFERENCE_VECTORS: Mapping[str, Sequence[float]] = {
    "sentence-transformers/all-MiniLM-L6-v2": (
        -0.06277,
        0.05496,
        0.05216,
        0.08579,
        -0.08275,
        -0.07457,
        0.06855,
        0.01840,
        -0.08201,
        -0.03738,
        0.01212,
        0.00352,
    ),
}
"""By model: the first numbers of the vector that sentence-transformers computes for `REFERENCE_TEXT`."""
_TOLERANCE = 0.005
"""For each number. bf16 deviates by up to 0.002, f32 by 1e-6, wrong weights or pooling by 0.05."""


async def local_facts(target: Target, *, hf_endpoint: str | None = None) -> tuple[Path, Facts]:
    """Return the folder of an endpoint's model, and its facts. Downloads the model if needed, but does not load it.

    Raises:
        InvalidEndpoint: the model does not support the endpoint's task, or the task its precision.
        RuntimeFailed: the model is not found or cannot run, or the runtime is not installed.
    """
    endpoint = target.endpoint
    generates = endpoint.task in GENERATION_TASKS
    require_runtime(generates=generates)
    if generates and endpoint.precision is Precision.INT8:
        raise InvalidEndpoint(
            "The precision int8 is for models that embed or rerank.",
            remedy="A model that generates text keeps the weights it was exported with: export it in int8, and use f32 here.",
        )
    model = endpoint.model or ""
    folder = await find_model(
        model,
        hf_endpoint=hf_endpoint,
        token=target.token,
        generates=generates,
        check=partial(check_files, task=endpoint.task),
    )
    if generates:
        return folder, await _generator_facts(model, folder)
    spec = await in_model_folder(model, partial(read_model_spec, folder))
    _check_task(endpoint.task, spec)
    head = spec.head
    return folder, Facts(
        engine=Engine.OPENVINO,
        engine_version=version("openvino"),
        model=await in_model_folder(model, partial(_public_name, model)),
        revision=await in_model_folder(
            model, partial(revision_of, folder, spec.numbers), _HASH_TIMEOUT_SECONDS
        ),
        dimensions=spec.width if isinstance(head, EmbeddingHead) else None,
        max_input_tokens=spec.max_tokens,
        auto_truncate=True,
        pooling=str(head.pooling) if isinstance(head, EmbeddingHead) else None,
        precision=Precision.F32,
        prompts=dict(spec.prompts),
        default_prompt=spec.default_prompt,
        rerank_template=head.template.name if isinstance(head, RankingHead) and head.template else None,
    )


async def _generator_facts(model: str, folder: Path) -> Facts:
    spec = await in_model_folder(model, partial(read_generation_spec, folder))
    return Facts(
        engine=Engine.OPENVINO,
        engine_version=version("openvino-genai" if spec.text2text is None else "openvino"),
        model=await in_model_folder(model, partial(_public_name, model)),
        revision=await in_model_folder(
            model, partial(revision_of, folder, spec.weights), _HASH_TIMEOUT_SECONDS
        ),
        max_input_tokens=spec.max_tokens,
        precision=Precision.F32,
        chats=spec.template is not None,
        completes=True,
    )


def check_files(folder: Path, *, task: Task) -> None:
    """Check the small files of a model, before its weights are downloaded.

    Raises:
        InvalidEndpoint: the model does not support the task.
        RuntimeFailed: it cannot run.
    """
    if task in GENERATION_TASKS:
        read_generation_spec(folder, downloaded=False)
    else:
        _check_task(task, read_model_spec(folder, downloaded=False))


def require_runtime(*, generates: bool = False) -> None:
    """Check that the runtime's libraries are installed, without importing them.

    Raises:
        RuntimeFailed: a library is missing.
    """
    needed = (*_RUNTIME, _GENERATION) if generates else _RUNTIME
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeFailed(
            f"Local models need {', '.join(missing)}, which is not installed.",
            remedy=f'Install it with: pip install "hubgate[{"generate" if generates else "local"}]"',
            cause=Cause.RUNTIME_MISSING,
        )


def revision_of(folder: Path, weights: Path) -> str:
    """The commit of a downloaded snapshot; for any other folder, a hash of the weights."""
    if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name):
        return folder.name
    with weights.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def _check_task(task: Task, spec: ModelSpec) -> None:
    supported = Task.TEXT_EMBEDDING if isinstance(spec.head, EmbeddingHead) else Task.RERANK
    if task is not supported:
        raise InvalidEndpoint(
            f"The model in {spec.folder.name} does {supported}, not {task}.",
            remedy=f"Register it with the task {supported}; embedding models, and rerankers whose prompt is known, run locally.",
            cause=Cause.WRONG_TASK,
        )


def _public_name(model: str) -> str:
    """The name that clients see: not the path of a folder, but its name."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model


def check_reference(model: str | None, vector: bytes) -> None:
    """Compare the float32 vector of `REFERENCE_TEXT` with the one that the model of this name is known to compute.

    Raises:
        RuntimeFailed: they differ.
    """
    expected = REFERENCE_VECTORS.get(model or "")
    if expected is None:
        return
    actual = array("f", vector[: 4 * len(expected)])
    if any(abs(one - other) > _TOLERANCE for one, other in zip(expected, actual, strict=True)):
        raise RuntimeFailed(
            f"The model that runs as {model} is a different one: its vector of a reference text differs.",
            remedy="Its files are damaged or replaced: delete them from the download cache and register it again.",
            cause=Cause.MODEL_UNUSABLE,
        )
