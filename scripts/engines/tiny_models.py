"""Makes tiny models, the same each time: a llama of random weights that chats, and two BERTs that rank.

A BERT is trained for some seconds on the questions that hubgate asks each reranker at registration, which refuses one
that ranks at random. One is told which tokens are the document's; llama.cpp does not tell that, so the other is not. Run
in the environment of transformers: `python tiny_models.py FOLDER QUESTIONS` writes FOLDER/llama, FOLDER/ranker and
FOLDER/ranker-one-segment; QUESTIONS is a JSON file of questions and answers by language.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")
tokenizers: Any = importlib.import_module("tokenizers")

MOST_TOKENS = 256
"""That each model reads."""
SEED = 4
MOST_STEPS, LEAD = 600, 2.0
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


def main(folder: Path, questions: Path) -> None:
    """Write all."""
    llama(folder / "llama")
    groups = list(json.loads(questions.read_text("utf-8")).values())
    ranker(folder / "ranker", groups, segment=1)
    ranker(folder / "ranker-one-segment", groups, segment=0)


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


def ranker(folder: Path, questions: list[dict[str, str]], *, segment: int) -> None:
    """A cross-encoder; `segment` is the document's, the query's is 0."""
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    told = re.findall(r"[\u4e00-\u9fff]|\w+|[^\w\s]", _joined(questions))
    known = list(dict.fromkeys([*special.values(), *WORDS, *LETTERS, *told]))
    words = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: place for place, word in enumerate(known)}, unk_token="[UNK]")
    )
    words.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    words.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] $B:{segment} [SEP]:{segment}",
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
    model = transformers.BertForSequenceClassification(config)
    train(model, words, questions)
    model.float().eval().save_pretrained(folder)


def _joined(questions: list[dict[str, str]]) -> str:
    return " ".join(text for pairs in questions for pair in pairs.items() for text in pair).lower()


def train(model: Any, words: Any, questions: list[dict[str, str]]) -> None:
    """Until each question's own answer leads."""
    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    pairs = [
        (question, answer, float(own == answer))
        for group in questions
        for question, own in group.items()
        for answer in group.values()
    ]
    words.enable_padding()
    rows = words.encode_batch([(question, answer) for question, answer, _ in pairs])
    words.no_padding()
    inputs = {
        "input_ids": torch.tensor([row.ids for row in rows]),
        "attention_mask": torch.tensor([row.attention_mask for row in rows]),
        "token_type_ids": torch.tensor([row.type_ids for row in rows]),
    }
    expected = torch.tensor([right for *_, right in pairs])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.eval()  # without dropout, so that it is the same each time
    for _ in range(MOST_STEPS):
        scores = model(**inputs).logits[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, expected)
        # The three answers to one question follow each other.
        right = torch.where(expected > 0, scores, -torch.inf).view(-1, 3).amax(1)
        wrong = torch.where(expected > 0, -torch.inf, scores).view(-1, 3).amax(1)
        if (right - wrong).min().item() > LEAD:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sys.exit("The tiny reranker did not learn to rank.")


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
    main(*map(Path, sys.argv[1:]))
