"""A loaded model: texts to token ids, batches of ids to vectors. Used inside the worker process only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubgate.runtime.batching import padded
from hubgate.runtime.bert import build
from hubgate.runtime.openvino_quiet import openvino
from hubgate.runtime.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.runtime.folder import Recipe

PRECISION = "f32"
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Model:
    """A compiled model on the CPU. `run` belongs to one thread."""

    def __init__(self, recipe: Recipe) -> None:
        """Load and compile.

        Raises:
            RuntimeFailed: the folder's files do not fit together.
        """
        self.tokens = Tokens(recipe)
        self._max_tokens = recipe.max_tokens
        # On CPUs that have bf16 OpenVINO takes it unasked, at cosine 0.9999 to f32: the reference is f32.
        options = {
            "INFERENCE_PRECISION_HINT": PRECISION,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": usable_cpus(),
            # A second worker would be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = openvino.Core().compile_model(build(recipe, self.tokens.vocabulary), "CPU", options)
        self._request = compiled.create_infer_request()

    def run(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The vectors of a batch of token ids, pooled and normalised, each `[texts, dimensions]` in f32."""
        lengths = np.array([len(row) for row in rows])
        longest = min(padded(int(lengths.max())), self._max_tokens)  # beyond it there may be no positions
        mask = np.arange(longest) < lengths[:, None]
        ids = np.zeros(mask.shape, np.int32)
        ids[mask] = np.concatenate([np.asarray(row, np.int32) for row in rows])
        self._request.infer([ids, mask.astype(np.float32)])
        pooled, normalized = (self._request.get_output_tensor(n).data.copy() for n in (0, 1))
        return pooled, normalized


def usable_cpus(quota_file: Path = _CGROUP_QUOTA) -> int:
    """The processors this process may really use: its affinity, and a container's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text().split()
        return max(1, min(cpus, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return cpus
