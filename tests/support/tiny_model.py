"""A tiny BERT with random weights as a sentence-transformers folder, its arithmetic in numpy, and calls to its worker.

And two rerankers without training that rank nevertheless: their score is how many tokens of a pair or of a prompt come
twice, because a question and its answer share words. Their graphs are in OpenVINO's format.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from hubgate.runtime.model.graph import openvino, ops
from hubgate.runtime.protocol import Embedded, EmbedTexts
from hubgate.service.registry.ranking import QUESTIONS

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
    """Write weights in f32 or f16, or in bf16 if they are its bits."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in tensors.items():
        kind = {"f4": "F32", "f2": "F16", "u2": "BF16"}[tensor.dtype.str[1:]]
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


_RANKER_WORDS = r"<\|?[a-z_/]+\|?>|[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+|[^\w\s]"
_RANKER_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
Node = Any


def write_cross_encoder(folder: Path) -> Path:
    """A cross-encoder whose score is the number of repeated tokens."""
    inputs = [_input(name) for name in ("input_ids", "attention_mask")]
    _write_ranker(folder, "BertForSequenceClassification", _repeated(*inputs), inputs)
    return folder


def write_causal_ranker(folder: Path, *, cache: str = "none") -> Path:
    """A language model with logits `[texts, tokens, vocabulary]`: those of `yes` are the number of repeated tokens.

    Its cache adds to every logit what an earlier batch left in it: in `states`, as optimum exports to OpenVINO have
    them, or in `inputs`, as ONNX exports have them, where an empty cache adds nothing.
    """
    inputs = [_input(name) for name in ("input_ids", "attention_mask", "position_ids")]
    vocabulary = _ranker_vocabulary()
    count = ops.unsqueeze(_repeated(*inputs[:2]), [2])
    is_yes = np.zeros((1, 1, len(vocabulary)), np.float32)
    is_yes[0, 0, vocabulary["yes"]] = 1
    places = ops.unsqueeze(ops.convert(ops.multiply(inputs[2], ops.constant(np.int64(0))), np.float32), [2])
    sinks = []
    hidden = ops.add(count, places)
    if cache == "states":
        beams = ops.parameter([-1], np.int32, "beam_idx")
        beams.output(0).get_tensor().set_names({"beam_idx"})
        inputs.append(beams)
        kept = ops.read_value(ops.constant(np.zeros((1, 1, 1), np.float32)), "cache", np.float32, [1, 1, 1])
        more = ops.add(kept, ops.constant(np.full((1, 1, 1), 100, np.float32)))
        sinks.append(ops.assign(more, "cache"))
        hidden = ops.add(hidden, kept)
    if cache == "inputs":
        past = ops.parameter([-1, 1, -1, 1], np.float32, "past")
        past.output(0).get_tensor().set_names({"past_key_values.0.key"})
        inputs.append(past)
        hidden = ops.add(hidden, _total(past))
    _write_ranker(
        folder, "Qwen3ForCausalLM", ops.matmul(hidden, ops.constant(is_yes), False, False), inputs, sinks
    )
    return folder


def _total(past: Node) -> Node:
    return ops.reshape(ops.reduce_sum(past, [0, 1, 2, 3]), [1, 1, 1], False)


def _input(name: str) -> Node:
    made = ops.parameter([-1, -1], np.int64, name)
    made.output(0).get_tensor().set_names({name})
    return made


def _repeated(ids: Node, mask: Node) -> Node:
    """How many tokens of each row equal another one, in twentieths, `[rows, 1]`."""
    seen = ops.convert(mask, np.float32)
    pairs = ops.convert(ops.equal(ops.unsqueeze(ids, [1]), ops.unsqueeze(ids, [2])), np.float32)
    pairs = ops.multiply(ops.multiply(pairs, ops.unsqueeze(seen, [1])), ops.unsqueeze(seen, [2]))
    others = ops.subtract(ops.reduce_sum(pairs, [2]), seen)
    twice = ops.convert(ops.greater(others, ops.constant(np.float32(0))), np.float32)
    count = ops.reduce_sum(ops.multiply(twice, seen), [1], keep_dims=True)
    return ops.multiply(count, ops.constant(np.float32(0.05)))  # a sigmoid has few values near 1


def _ranker_vocabulary() -> dict[str, int]:
    texts = [text for pairs in QUESTIONS.values() for pair in pairs.items() for text in pair]
    splitter = pre_tokenizers.Split(Regex(_RANKER_WORDS), "removed", invert=True)
    words = [word for text in texts for word, _ in splitter.pre_tokenize_str(text)]
    return {
        word: place
        for place, word in enumerate(dict.fromkeys([*_RANKER_SPECIAL, "yes", "no", "ship", "port", *words]))
    }


def _write_ranker(
    folder: Path, architecture: str, logits: Node, inputs: list[Node], sinks: list[Node] | None = None
) -> None:
    vocabulary = _ranker_vocabulary()
    result = ops.result(logits)
    graph = openvino.Model([result], sinks or [], inputs, "ranker")
    graph.outputs[0].get_tensor().set_names({"logits"})
    folder.mkdir(parents=True)
    openvino.save_model(graph, str(folder / "openvino_model.xml"), compress_to_fp16=False)
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(_RANKER_WORDS), "removed", invert=True)
    if architecture.startswith("Bert"):
        words.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    words.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "config.json",
        {
            "architectures": [architecture],
            "model_type": "tiny",
            "hidden_size": 1,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 256,
            "id2label": {"0": "LABEL_0"},
        },
    )
