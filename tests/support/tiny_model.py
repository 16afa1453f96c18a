"""A tiny BERT with random weights as a sentence-transformers folder, its arithmetic in numpy, and calls to its worker."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from hubgate.runtime.protocol import Embedded, EmbedTexts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from hubgate.runtime.process import WorkerProcess
    from hubgate.runtime.supervisor import LocalModel

HIDDEN, HEADS, LAYERS, WIDE, MAX_TOKENS, POSITIONS = 32, 4, 2, 64, 48, 64
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(96))]
EPSILON = 1e-12
Array = np.ndarray[Any, Any]


def write_json(file: Path, content: object) -> None:
    """Write one of the model's files."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), "utf-8")


def write_safetensors(file: Path, tensors: Mapping[str, Array]) -> None:
    """Write weights, in f32 or f16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in tensors.items():
        kind = {"f4": "F32", "f2": "F16"}[tensor.dtype.str[1:]]
        header[name] = {
            "dtype": kind,
            "shape": list(tensor.shape),
            "data_offsets": [start, start + tensor.nbytes],
        }
        start += tensor.nbytes
    head = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(t.tobytes() for t in tensors.values()))


def random_weights(seed: int = 7) -> dict[str, Array]:
    """The tensors of a small BERT."""
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> Array:
        return rng.normal(0, 0.5, shape).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": some(len(WORDS), HIDDEN),
        "embeddings.position_embeddings.weight": some(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": some(2, HIDDEN),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        for part, out, into in (
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", WIDE, HIDDEN),
            ("output.dense", HIDDEN, WIDE),
        ):
            weights[f"{name}.{part}.weight"] = some(out, into)
            weights[f"{name}.{part}.bias"] = some(out)
    for norm in norms:
        weights[f"{norm}.weight"], weights[f"{norm}.bias"] = some(HIDDEN), some(HIDDEN)
    return weights


def write_tiny_model(folder: Path, *, prefix: str = "", kind: str = "f4") -> dict[str, Array]:
    """Write the folder as sentence-transformers would, and return its weights."""
    weights = random_weights()
    write_safetensors(
        folder / "model.safetensors",
        {prefix + name: tensor.astype(kind) for name, tensor in weights.items()},
    )
    write_json(
        folder / "config.json",
        {
            "model_type": "bert",
            "hidden_act": "gelu",
            "hidden_size": HIDDEN,
            "num_attention_heads": HEADS,
            "num_hidden_layers": LAYERS,
            "layer_norm_eps": EPSILON,
            "max_position_embeddings": POSITIONS,
        },
    )
    write_json(
        folder / "modules.json",
        [
            {"path": path, "type": f"sentence_transformers.models.{name}"}
            for path, name in (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
        ],
    )
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": HIDDEN,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_cls_token": False,
        },
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {"query": "w1 w2 ", "nothing": ""}, "default_prompt_name": None},
    )
    _write_tokenizer(folder / "tokenizer.json")
    return weights


def _write_tokenizer(file: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # Training leaves these in the file; they must not affect embeddings.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(file))


def ids_of(text: str) -> list[int]:
    """The token ids of a text, with special tokens."""
    return [2, *(WORDS.index(word) if word in WORDS else 1 for word in text.split()), 3]


def reference(weights: Mapping[str, Array], ids: Sequence[int], pooling: str = "mean") -> Array:
    """The pooled vector of one text in f64: BERT as in its paper, without batching or padding."""
    w = {name: tensor.astype(np.float64) for name, tensor in weights.items()}

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])

    def linear(x: Array, name: str) -> Array:
        return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])

    def heads(x: Array) -> Array:
        return x.reshape(len(ids), HEADS, HIDDEN // HEADS).swapaxes(0, 1)

    gelu = np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)
    hidden = norm(
        w["embeddings.word_embeddings.weight"][list(ids)]
        + w["embeddings.position_embeddings.weight"][: len(ids)]
        + w["embeddings.token_type_embeddings.weight"][0],
        "embeddings.LayerNorm",
    )
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        q, k, v = (
            heads(linear(hidden, f"{name}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        scores = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(HIDDEN // HEADS))
        seen = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(ids), HIDDEN)
        hidden = norm(
            linear(seen, f"{name}.attention.output.dense") + hidden, f"{name}.attention.output.LayerNorm"
        )
        wide = gelu(linear(hidden, f"{name}.intermediate.dense"))
        hidden = norm(linear(wide, f"{name}.output.dense") + hidden, f"{name}.output.LayerNorm")
    return np.asarray(hidden.mean(0) if pooling == "mean" else hidden[0])


class TinyModelFolder:
    """A folder with the tiny model, and the vectors it must return."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.weights = write_tiny_model(path)

    def vector(self, text: str) -> Array:
        return reference(self.weights, ids_of(text))


def embed_request(
    *texts: str, normalize: bool | None = False, prompt: str | None = None
) -> Callable[[int], EmbedTexts]:
    return lambda call: EmbedTexts(call, list(texts), normalize, True, False, prompt)


async def embed_texts(model: LocalModel, *texts: str) -> Array:
    reply = await model.request(embed_request(*texts))
    assert isinstance(reply, Embedded)
    return np.frombuffer(reply.vectors, "<f4").reshape(-1, HIDDEN)


def worker_process(model: LocalModel) -> WorkerProcess:
    assert model._start is not None
    return model._start.result()
