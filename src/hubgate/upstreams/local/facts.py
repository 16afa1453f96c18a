"""What a local model is, from its files."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import partial
from importlib.metadata import version
from pathlib import Path

from hubgate.core.prompts import prefixes_from_prompts
from hubgate.domain.endpoint import Engine, Facts, Precision, Target, Task
from hubgate.domain.errors import Cause, InvalidEndpoint, RuntimeFailed
from hubgate.runtime.model.heads import EmbeddingHead
from hubgate.runtime.model.spec import ModelSpec, read_model_spec
from hubgate.upstreams.local.files import COMMIT, find_model, in_model_folder

_HASH_SECONDS = 600.0
"""For a digest of the weights, which may be gigabytes."""
_RUNTIME = ("numpy", "openvino", "tokenizers")


async def local_facts(target: Target, *, hf_endpoint: str | None = None) -> tuple[Path, Facts]:
    """The folder of an endpoint's model, and what it is; it is downloaded if need be, and not loaded.

    Raises:
        InvalidEndpoint: it does not do the endpoint's task.
        RuntimeFailed: it is not found, cannot be run, or the runtime is not installed.
    """
    require_runtime()
    endpoint = target.endpoint
    model = endpoint.model or ""
    folder = await find_model(model, hf_endpoint=hf_endpoint, token=target.token)
    recipe = await in_model_folder(model, partial(read_model_spec, folder))
    _check_task(endpoint.task, recipe)
    head = recipe.head
    return folder, Facts(
        engine=Engine.OPENVINO,
        engine_version=version("openvino"),
        model=await in_model_folder(model, partial(_shown, model)),
        revision=await in_model_folder(model, partial(revision_of, recipe), _HASH_SECONDS),
        dimensions=recipe.width if isinstance(head, EmbeddingHead) else None,
        max_input_tokens=recipe.max_tokens,
        auto_truncate=True,
        pooling=str(head.pooling) if isinstance(head, EmbeddingHead) else None,
        precision=Precision.F32,
        prefixes=dict(prefixes_from_prompts(recipe.prompts)),
    )


def require_runtime() -> None:
    """Check that the libraries are installed, without importing them.

    Raises:
        RuntimeFailed: one is not.
    """
    missing = [name for name in _RUNTIME if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeFailed(
            f"Local models need {', '.join(missing)}, which is not installed.",
            remedy='Install it with: pip install "hubgate[local]"',
            cause=Cause.RUNTIME_MISSING,
        )


def revision_of(recipe: ModelSpec) -> str:
    """The commit of a downloaded snapshot, else a digest of the weights."""
    folder = recipe.folder
    if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name):
        return folder.name
    with recipe.weights.open("rb") as weights:
        return f"sha256:{hashlib.file_digest(weights, 'sha256').hexdigest()}"


def _check_task(task: Task, recipe: ModelSpec) -> None:
    able = Task.TEXT_EMBEDDING if isinstance(recipe.head, EmbeddingHead) else Task.RERANK
    if task is not able:
        raise InvalidEndpoint(
            f"The model in {recipe.folder.name} does {able}, not {task}.",
            remedy=f"Register it with the task {able}; only embedding models and cross-encoders run locally.",
            cause=Cause.WRONG_TASK,
        )


def _shown(model: str) -> str:
    """What clients are told: of a folder its name, for no client sees a path of this machine."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model
