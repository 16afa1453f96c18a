"""Record tiny models of random weights, one of each recommended architecture, and what transformers makes of them.

Run once in an environment of its own, with the CPU build of torch, sentence-transformers and onnx, and commit the
folder:

    python scripts/record_tiny_models.py tests/data/tiny_models

The tests need neither: they run the models with hubgate's own runtime and compare. The weights are wide enough that
every part of a model shows in its vectors (transformers' own start, 0.02, gives nearly equal vectors for all texts).
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")
library: Any = importlib.import_module("sentence_transformers")
modules: Any = importlib.import_module("sentence_transformers.models")
tokenizers: Any = importlib.import_module("tokenizers")

HIDDEN, MAX_TOKENS = 16, 48
WORDS = [
    "a",
    "gate",
    "harbour",
    "boats",
    "come",
    "with",
    "the",
    "first",
    "light",
    "and",
    "gulls",
    "know",
    "every",
    "one",
    "of",
    "them",
    "ice",
    "is",
    "weighed",
    "nets",
]
TEXTS = [
    "",
    "a",
    "boats come with the first light",
    "The gulls know every one of them, and the ice is weighed.",
    "gate " * 20,
    "harbour nets and a gate " * 30,
    "unheard words, 3.14 of them: Überraschung!",
    "دروازه و 港口",
]
QUERY = "which boats come first"
BERT_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
ROBERTA_SPECIAL = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}


class Tiny(NamedTuple):
    """One model: its architecture, its tokenizer, and which files of weights it comes with."""

    kind: str
    """transformers' own name of the architecture."""
    tokenizer: str
    ranks: bool = False
    safetensors: bool = False
    onnx: bool = True
    pooling: str = "mean"
    activation: str | None = None
    layers: int = 2


MODELS = {
    "bert": Tiny("bert", "wordpiece", safetensors=True),  # as MiniLM and e5
    "bert-unigram": Tiny("bert", "unigram", safetensors=True, onnx=False),  # as multilingual-e5-small
    "mpnet": Tiny("mpnet", "mpnet"),  # as all-mpnet-base-v2
    "xlm-roberta": Tiny("xlm-roberta", "unigram"),  # as multilingual-e5-base
    "distilbert": Tiny("distilbert", "wordpiece", pooling="cls", layers=1),
    "ranker-bert": Tiny(  # as ms-marco-MiniLM
        "bert", "wordpiece", ranks=True, safetensors=True, onnx=False, activation="Identity"
    ),
    "ranker-xlm-roberta": Tiny("xlm-roberta", "unigram", ranks=True, layers=1),  # as bge-reranker
}


def tokenizer(kind: str) -> Any:
    """A tokenizer of a few dozen tokens, of the family that the architecture comes with."""
    letters = [*"abcdefghijklmnopqrstuvwxyz.,:"]
    special = BERT_SPECIAL if kind == "wordpiece" else ROBERTA_SPECIAL
    first, last = special["cls_token"], special["sep_token"]
    known = [*special.values(), *dict.fromkeys(WORDS), *letters]
    if kind == "unigram":
        pieces = [(word, 0.0) for word in special.values()]
        pieces += [("▁", -2.0), *((f"▁{word}", -3.0) for word in dict.fromkeys(WORDS))]
        pieces += [(letter, -6.0) for letter in letters if (letter, 0.0) not in pieces]
        made = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=3))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        made.decoder = tokenizers.decoders.Metaspace()
    else:
        vocabulary = {
            word: number
            for number, word in enumerate([*dict.fromkeys(known), *(f"##{one}" for one in letters)])
        }
        made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token=special["unk_token"]))
        made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    pair = (
        f"{first} $A {last} $B:1 {last}:1" if kind == "wordpiece" else f"{first} $A {last} {last} $B {last}"
    )
    ids = [(word, made.token_to_id(word)) for word in (first, last)]
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=pair, special_tokens=ids
    )
    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if kind == "wordpiece" else [])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=MAX_TOKENS, model_input_names=inputs, **special
    )


def network(tiny: Tiny, words: Any) -> Any:
    """The architecture with weights of its own."""
    sizes = (
        {"dim": HIDDEN, "n_heads": 2, "n_layers": tiny.layers, "hidden_dim": 32}
        if tiny.kind == "distilbert"
        else {
            "hidden_size": HIDDEN,
            "num_attention_heads": 2,
            "num_hidden_layers": tiny.layers,
            "intermediate_size": 32,
        }
    )
    config = transformers.AutoConfig.for_model(
        tiny.kind,
        **sizes,
        vocab_size=len(words),
        max_position_embeddings=MAX_TOKENS + 2,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.cls_token_id,
        eos_token_id=words.sep_token_id,
        type_vocab_size=1 if tiny.kind == "xlm-roberta" else 2,
        **({"num_labels": 1} if tiny.ranks else {}),
    )
    kind = transformers.AutoModelForSequenceClassification if tiny.ranks else transformers.AutoModel
    model = kind.from_config(config)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.1 if parameter.ndim == 1 else 0.5
            base = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(base + scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def export(model: Any, words: Any, file: Path) -> None:
    """Write the graph as the models of the Hub have it: optimum's names, every size free but the width."""
    file.parent.mkdir()
    example = dict(words(["a gate", "boats"], padding=True, return_tensors="pt"))
    output = "last_hidden_state" if not hasattr(model, "classifier") else "logits"
    free = {0: "batch_size", 1: "sequence_length"}
    torch.onnx.export(
        _ByName(model, list(example), output),
        tuple(example.values()),
        str(file),
        input_names=list(example),
        output_names=[output],
        dynamic_axes={
            **dict.fromkeys(example, free),
            output: free if output != "logits" else {0: "batch_size"},
        },
        opset_version=14,
        dynamo=False,
    )


class _ByName(torch.nn.Module):  # type: ignore[misc]
    """A model whose inputs have places instead of names."""

    def __init__(self, model: Any, names: list[str], output: str) -> None:
        super().__init__()
        self.model, self.names, self.output = model, names, output

    def forward(self, *inputs: Any) -> Any:
        return getattr(self.model(**dict(zip(self.names, inputs, strict=True))), self.output)


def record(tiny: Tiny, out: Path) -> dict[str, Any]:
    """Write one folder, by sentence-transformers itself, and what it answers."""
    words = tokenizer(tiny.tokenizer)
    model = network(tiny, words)
    with tempfile.TemporaryDirectory() as bare:
        model.save_pretrained(bare)
        words.save_pretrained(bare)
        if tiny.ranks:
            activation = getattr(torch.nn, tiny.activation)() if tiny.activation else None
            whole = library.CrossEncoder(bare, device="cpu", activation_fn=activation)
        else:
            transformer = modules.Transformer(bare)
            pooling = modules.Pooling(HIDDEN, pooling_mode=tiny.pooling)
            whole = library.SentenceTransformer(
                modules=[transformer, pooling, modules.Normalize()], device="cpu"
            )
        whole.save_pretrained(str(out), create_model_card=False)
    if tiny.onnx:
        export(model, words, out / "onnx" / "model.onnx")
    if not tiny.safetensors:
        (out / "model.safetensors").unlink()
    if tiny.ranks:
        pairs = [(QUERY, text) for text in TEXTS]
        raw = whole.predict(pairs, activation_fn=torch.nn.Identity(), batch_size=1)
        return {"scores": whole.predict(pairs, batch_size=1).tolist(), "raw": raw.tolist()}
    return {"vectors": [whole.encode(text).tolist() for text in TEXTS]}


def main(folder: str) -> None:
    """Write all folders and one file of answers."""
    out = Path(folder)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    answers = {name: record(tiny, out / name) for name, tiny in MODELS.items()}
    tools = {
        name: version(name)
        for name in ("sentence-transformers", "transformers", "tokenizers", "torch", "onnx")
    }
    content = {"tools": tools, "query": QUERY, "texts": TEXTS, "answers": answers}
    (out / "answers.json").write_text(
        json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    print(f"{len(answers)} models written to {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
