"""Makes two tiny models of random weights, the same each time: a llama that chats, and a BERT that ranks.

Run in the environment of transformers: `python tiny_models.py FOLDER` writes FOLDER/llama and FOLDER/ranker.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")
tokenizers: Any = importlib.import_module("tokenizers")

MOST_TOKENS = 256
"""That either model reads."""
SEED = 4
_TEXT = """
a gate opens at dawn and the harbour boats come with first light gulls know every one of them ice is weighed nets dry
question answer user assistant system good morning which town far sea wind über café
门 在 黎明 时 打开 港口 城镇 دروازه سپیده‌دم باز می‌شود شهر بندر
"""
WORDS = list(dict.fromkeys(_TEXT.split()))
LETTERS = "abcdefghijklmnopqrstuvwxyz:.,?!"
CHAT = (
    "{% for message in messages %}{{ message['role'] }} : {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


def main(folder: Path) -> None:
    """Write both."""
    llama(folder / "llama")
    ranker(folder / "ranker")


def llama(folder: Path) -> None:
    """A writer of whole words of three scripts, so that all it says is valid text however it is cut."""
    letters = sorted({*LETTERS, *"".join(WORDS)})
    known = ["<unk>", "<s>", "</s>", *(f"▁{word}" for word in WORDS), "▁", *letters]
    scored = [(word, -2.0 if len(word) > 2 else -9.0) for word in known]
    words = tokenizers.Tokenizer(tokenizers.models.Unigram(scored, unk_id=0))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    words.decoder = tokenizers.decoders.Metaspace()
    save_tokenizer(
        folder,
        words,
        {
            "unk_token": "<unk>",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "</s>",
            "chat_template": CHAT,
        },
    )
    config = transformers.LlamaConfig(
        vocab_size=len(known),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=1,  # a head of 64 is the least that vLLM takes
        num_key_value_heads=1,
        max_position_embeddings=MOST_TOKENS,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    save_model(folder, transformers.LlamaForCausalLM, config)


def ranker(folder: Path) -> None:
    """A cross-encoder."""
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    known = list(dict.fromkeys([*special.values(), *WORDS, *LETTERS]))
    words = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: place for place, word in enumerate(known)}, unk_token="[UNK]")
    )
    words.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    words.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", known.index("[CLS]")), ("[SEP]", known.index("[SEP]"))],
    )
    save_tokenizer(folder, words, special, "token_type_ids")
    config = transformers.BertConfig(
        vocab_size=len(known),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=MOST_TOKENS,
        num_labels=1,
    )
    save_model(folder, transformers.BertForSequenceClassification, config)


def save_tokenizer(folder: Path, words: Any, special: dict[str, str], *inputs: str) -> None:
    """Write a tokenizer down; `inputs` are what its model takes besides tokens and mask."""
    inputs = ("input_ids", *inputs, "attention_mask")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=MOST_TOKENS, model_input_names=list(inputs), **special
    ).save_pretrained(folder)
    # infinity comes with a transformers that does not know the name which the newest one gives to this class.
    file = folder / "tokenizer_config.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(told | {"tokenizer_class": "PreTrainedTokenizerFast"}), encoding="utf-8")


def save_model(folder: Path, kind: Any, config: Any) -> None:
    """Write a model down whose weights are wide enough that every part of it shows in what it says."""
    model = kind(config)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" not in name.lower():
                weights.copy_(torch.randn(weights.shape, generator=generator) * 0.3)
    model.float().eval().save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
