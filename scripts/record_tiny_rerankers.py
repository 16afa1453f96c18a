"""Record tiny language models that rerank, one for each prompt, and what transformers makes of them.

Run once in an environment of its own, with the CPU build of torch, transformers, onnx and openvino, and commit the
folder:

    python scripts/record_tiny_rerankers.py tests/data/tiny_rerankers

The tests need none of these: they run the models with hubgate's own runtime and compare. The weights are random, and
the prompts are hubgate's own (`hubgate.core.rerank_templates`, tested elsewhere against the models' cards). Scores are
computed as the cards do: each prompt alone, the logits of its last token.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
from hubgate.core.rerank_templates import RerankTemplate, rerank_template

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")
tokenizers: Any = importlib.import_module("tokenizers")
openvino: Any = importlib.import_module("openvino")

MAX_TOKENS = 1024
MARKERS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "<bos>", "<eos>")
MERGES = [("y", "e"), ("ye", "s"), ("n", "o"), ("Y", "e"), ("Ye", "s")]
QUERY, INSTRUCTION = "which boats come first?", "Find the boats"
TEXTS = [
    "",
    "boats",
    "The gulls know every one of them, and the ice is weighed.",
    "first <|im_end|> {document} light\n\nand nets",
    "دروازه و 港口",
    "harbour nets and a gate " * 60,
]


class Tiny(NamedTuple):
    """One model: its name, which says what its prompt is, and its architecture."""

    name: str
    kind: str
    ranks: bool = False
    """Whether it has a head for scores."""
    openvino: bool = False
    """Whether its graph is in OpenVINO's format, not in ONNX."""
    positions: bool = False
    """Whether its graph has an input for positions, as exports for generation do."""
    layers: int = 1


MODELS = (
    Tiny("Qwen3-Reranker-tiny", "qwen3", positions=True, layers=2),
    Tiny("Qwen3-Reranker-tiny-seq-cls", "qwen3", ranks=True),
    Tiny("mxbai-rerank-base-v2", "qwen2", openvino=True, positions=True),
    Tiny("bge-reranker-v2-gemma", "gemma"),
    Tiny("zerank-2", "qwen3"),
    Tiny("ctxl-rerank-v2-instruct-multilingual-tiny", "qwen3"),
)


def tokenizer(*, bos: bool) -> Any:
    """Bytes, the markers of the prompts, and the words whose logits are scores."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *("".join(pair) for pair in MERGES)]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, MERGES))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens([tokenizers.AddedToken(marker, special=True) for marker in MARKERS])
    if bos:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", made.token_to_id("<bos>"))]
        )
    return made


def network(tiny: Tiny, made: Any) -> Any:
    """The architecture with random weights, wide enough that every part shows in the scores."""
    config = transformers.AutoConfig.for_model(
        tiny.kind,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=tiny.layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        vocab_size=made.get_vocab_size(),
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=made.token_to_id("<eos>"),
        bos_token_id=made.token_to_id("<bos>"),
        eos_token_id=made.token_to_id("<eos>"),
        **({"num_labels": 1} if tiny.ranks else {}),
    )
    kind = (
        transformers.AutoModelForSequenceClassification if tiny.ranks else transformers.AutoModelForCausalLM
    )
    model = kind.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            base = 1.0 if "norm" in name.lower() and name.endswith("weight") and tiny.kind != "gemma" else 0.0
            parameter.copy_(base + 0.25 * torch.randn(parameter.shape, generator=generator))
    return model.float().eval()


class _ByPlace(torch.nn.Module):  # type: ignore[misc]
    """A model whose inputs have places instead of names."""

    def __init__(self, model: Any, *, positions: bool) -> None:
        super().__init__()
        self.model, self.positions = model, positions

    def forward(self, ids: Any, mask: Any, positions: Any = None) -> Any:
        more = {"position_ids": positions} if self.positions else {}
        return self.model(input_ids=ids, attention_mask=mask, use_cache=False, **more).logits


def export(tiny: Tiny, model: Any, folder: Path) -> None:
    """Write the graph as the models of the Hub have it: the names of optimum, every size free."""
    names = ["input_ids", "attention_mask", *(["position_ids"] if tiny.positions else [])]
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    ids = torch.where(mask > 0, torch.arange(18).reshape(2, 9) + 40, model.config.pad_token_id)
    example = (ids, mask, *([torch.arange(9).repeat(2, 1)] if tiny.positions else []))
    module = _ByPlace(model, positions=tiny.positions)
    if tiny.openvino:
        graph = openvino.convert_model(module, example_input=example)
        for port, name in zip([*graph.inputs, graph.outputs[0]], [*names, "logits"], strict=True):
            port.get_tensor().set_names({name})
        (folder / "openvino").mkdir()
        openvino.save_model(graph, folder / "openvino" / "openvino_model.xml", compress_to_fp16=False)
        return
    free = {0: "batch_size", 1: "sequence_length"}
    (folder / "onnx").mkdir()
    torch.onnx.export(
        module,
        example,
        str(folder / "onnx" / "model.onnx"),
        input_names=names,
        output_names=["logits"],
        dynamic_axes={**dict.fromkeys(names, free), "logits": {0: "batch_size"} if tiny.ranks else free},
        opset_version=17,
        dynamo=False,
    )


def scores(
    tiny: Tiny, template: RerankTemplate, model: Any, made: Any, instruction: str | None
) -> list[float]:
    """The raw score of each text, as the model's card computes it."""
    found = []
    for text in TEXTS:
        before, after = template.around(QUERY, instruction)
        ids = made.encode(template.begin + before + text, add_special_tokens=False).ids
        end = made.encode(after, add_special_tokens=False).ids
        limit = min(MAX_TOKENS, template.max_tokens) - len(end)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[:limit] + end])).logits
        if tiny.ranks:
            found.append(float(logits[0, 0]))
            continue
        yes, no = (
            word if isinstance(word, int | None) else made.token_to_id(word)
            for word in (template.yes, template.no)
        )
        last = logits[0, -1]
        found.append(float(last[yes] - (last[no] if no is not None else 0.0)) * template.scale)
    return found


def main(folder: str) -> None:
    """Write all folders and one file of answers."""
    out = Path(folder)
    shutil.rmtree(out, ignore_errors=True)
    answers = {}
    for tiny in MODELS:
        template = rerank_template(tiny.name)
        assert template is not None
        own = out / tiny.name
        own.mkdir(parents=True)
        made = tokenizer(bos=bool(template.begin))
        model = network(tiny, made)
        made.save(str(own / "tokenizer.json"))
        config = model.config.to_dict() | {"architectures": [type(model).__name__]}
        (own / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n", "utf-8")
        export(tiny, model, own)
        answers[tiny.name] = {
            "raw": scores(tiny, template, model, made, None),
            "instructed": scores(tiny, template, model, made, INSTRUCTION) if template.instructed else None,
        }
    tools = {name: version(name) for name in ("transformers", "tokenizers", "torch", "onnx", "openvino")}
    content = {"tools": tools, "query": QUERY, "instruction": INSTRUCTION, "texts": TEXTS, "answers": answers}
    (out / "answers.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")
    print(f"{len(answers)} models written to {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
