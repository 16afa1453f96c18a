"""Runs in the environment of `peers.py`: answers one JSON request per line, with the libraries' own defaults."""

from __future__ import annotations

import base64
import importlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

np: Any = importlib.import_module("numpy")
torch: Any = importlib.import_module("torch")
library: Any = importlib.import_module("sentence_transformers")
fastembed: Any = importlib.import_module("fastembed")
described: Any = importlib.import_module("fastembed.common.model_description")


class _Hidden(torch.nn.Module):  # type: ignore[misc]
    """A BERT whose inputs have places instead of names."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


def _onnx_folder(model: Path, folder: Path, transformer: Any) -> Path:
    """The model as fastembed wants it: its graph in ONNX, and no other limit than sentence-transformers has."""
    copy = folder / "fastembed"
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((copy / "tokenizer_config.json").read_text()) | {
        "model_max_length": 256,
        "max_length": 256,
    }
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    free = {0: "batch_size", 1: "sequence_length"}
    torch.onnx.export(
        _Hidden(transformer),
        tuple(torch.ones((2, 8), dtype=torch.int64) for _ in names),
        str(copy / "model.onnx"),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes=dict.fromkeys((*names, "last_hidden_state"), free),
        opset_version=14,
        dynamo=False,
    )
    return copy


def _gemm_gflops(size: int = 2048) -> float:
    """Billions of operations in a second of one core, in one large product of f32 matrices."""
    one, other = torch.rand(size, size), torch.rand(size, size)
    torch.mm(one, other)
    began = time.process_time()
    for _ in range(4):
        torch.mm(one, other)
    return float(4 * 2 * size**3 / (time.process_time() - began) / 1e9)


def main(model: str, folder: str) -> None:
    """Load both, then answer until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sentences = library.SentenceTransformer(model, device="cpu")
    plain = library.SentenceTransformer(model, device="cpu", model_kwargs={"attn_implementation": "eager"})
    exported = _onnx_folder(Path(model), Path(folder), plain[0].auto_model)
    fastembed.TextEmbedding.add_custom_model(
        model="bench/minilm",
        pooling=described.PoolingType.MEAN,
        normalization=True,
        sources=described.ModelSource(hf="bench/minilm"),
        dim=384,
        model_file="model.onnx",
    )
    fast = fastembed.TextEmbedding("bench/minilm", specific_model_path=str(exported))
    ways: dict[str, Callable[[list[str]], Any]] = {
        "sentence-transformers": lambda texts: sentences.encode(texts, show_progress_bar=False),
        "fastembed": lambda texts: np.array(list(fast.embed(texts))),
    }
    for line in sys.stdin:
        question = json.loads(line)
        if question.get("gemm"):
            answer: dict[str, Any] = {"gflops": _gemm_gflops()}
        else:
            began = time.perf_counter()
            vectors = ways[question["peer"]](question["texts"])
            answer = {"seconds": time.perf_counter() - began}
            if question.get("vectors"):
                answer["vectors"] = base64.b64encode(vectors.astype("<f4").tobytes()).decode()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
