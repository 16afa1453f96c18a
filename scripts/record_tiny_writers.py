"""Record tiny models that generate text, exported to OpenVINO, and what transformers generates with them.

Run once in an environment of its own, with the CPU build of torch and optimum-intel[openvino], and commit the folder:

    python scripts/record_tiny_writers.py tests/data/tiny_writers

The models learn a few sentences by heart, which takes a minute, so that their greedy texts do not depend on rounding.
Their weights are rounded to 16 bits before anything is recorded, so that the exported files have the same values.
"""

from __future__ import annotations

import gzip
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")
tokenizers: Any = importlib.import_module("tokenizers")

CONTEXT = 256
SENTENCES = [
    "The ferry leaves the harbour at nine in the morning.",
    "Boats come in with the first light, and the gulls follow.",
    "渔民在码头上修补渔网。",
    "کشتی‌ها با نخستین روشنایی می‌آیند.",
    "Emoji: 🚢⚓ are written in several tokens.",
]
CHATS = [
    (
        "When does the ferry leave?",
        "It leaves at nine in the morning, and again at four.\n\nTickets are sold on the quay.",
    ),
    ("Hello", "Good morning! How can I help you today?"),
]
PAIRS = [
    ("translate English to German: The boat is small.", "Das Boot ist klein."),
    ("translate English to German: Good morning, harbour!", "Guten Morgen, Hafen!"),
    (
        "summarize: The ferry leaves at nine. It returns at four, with the post and the fish.",
        "The ferry leaves at nine and returns at four.",
    ),
    ("summarize: 渔民在码头上修补渔网，妇女们卖鱼。", "渔民补网，妇女卖鱼。"),
]
PROMPTS = ["The ferry", "Boats", "渔民", "کشتی", "Emoji: ", "A quiet", "12 + 30 ="]
INPUTS = [*(source for source, _ in PAIRS), "translate English to German: The ferry is small.", "gulls"]
NEW_TOKENS = 40
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BEAMS = {
    "num_beams": 4,
    "length_penalty": 2.0,
    "no_repeat_ngram_size": 3,
    "early_stopping": True,
    "min_length": 6,
    "max_length": 48,
}
"""As in the generation_config.json of facebook/bart-large-cnn."""


UNLEARNED = [
    "The fish sells the post",
    "harbour light and ice",
    "small boats at four",
    "渔民卖船",
    "12 + 30 =",
]
_SEARCH = {
    "num_beams": 3,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "length_penalty": 1.0,
    "early_stopping": False,
}
_FREE = {"forced_bos_token_id": None, "forced_eos_token_id": None}
RULES: list[dict[str, Any]] = [
    {**_SEARCH, **_FREE},
    {**_SEARCH, **_FREE, "length_penalty": -1.0, "early_stopping": True},
    {**_SEARCH, **_FREE, "num_beams": 5, "no_repeat_ngram_size": 2, "min_length": 9, "max_new_tokens": 20},
    {**_SEARCH, "num_beams": 2, "forced_bos_token_id": 7, "forced_eos_token_id": 2, "max_new_tokens": 8},
    {**_SEARCH, **_FREE, "num_beams": 1, "repetition_penalty": 1.5, "no_repeat_ngram_size": 3},
    {**_SEARCH, **_FREE, "num_beams": 1, "encoder_no_repeat_ngram_size": 1},
    {**_SEARCH, **_FREE, "encoder_no_repeat_ngram_size": 2, "min_new_tokens": 14, "min_length": 4},
    {**_SEARCH, **_FREE, "num_beams": 2, "length_penalty": 1.5, "early_stopping": "never"},
    {**_SEARCH, **_FREE, "repetition_penalty": 1.8, "no_repeat_ngram_size": 2, "renormalize_logits": True},
]
TOKEN_RULES: dict[str, list[dict[str, Any]]] = {
    "t5": [
        {**_SEARCH, **_FREE, "num_beams": 1, "bad_words_ids": [[49], [31, 10], [20, 5, 44], [1]]},
        {**_SEARCH, **_FREE, "bad_words_ids": [[0], [66], [31, 10], [4, 30, 20, 5]]},
        {**_SEARCH, **_FREE, "suppress_tokens": [24, 66], "renormalize_logits": True},
        {**_SEARCH, **_FREE, "num_beams": 1, "begin_suppress_tokens": [3]},
        {**_SEARCH, **_FREE, "forced_bos_token_id": 3, "begin_suppress_tokens": [24, 66]},
    ],
    "bart": [
        {**_SEARCH, **_FREE, "num_beams": 1, "bad_words_ids": [[224], [270, 345], [349, 366, 224], [2]]},
        {**_SEARCH, **_FREE, "bad_words_ids": [[1], [366], [270, 345, 341]]},
        {**_SEARCH, **_FREE, "suppress_tokens": [345, 349], "renormalize_logits": True},
        {**_SEARCH, **_FREE, "num_beams": 1, "begin_suppress_tokens": [0]},
        {**_SEARCH, **_FREE, "forced_bos_token_id": 0, "begin_suppress_tokens": [270, 349]},
    ],
}
"""Rules about tokens, in the vocabulary of each model."""


def byte_level(texts: list[str], special: list[str]) -> Any:
    """A byte-level BPE tokenizer, as those of Qwen2, Llama 3 and BART."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=384, special_tokens=special, initial_alphabet=alphabet
    )
    made.train_from_iterator(texts, trainer)
    return made


def train(model: Any, batch: dict[str, Any], steps: int) -> None:
    """Learn a batch by heart, and round the weights."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    print(f"{type(model).__name__}: loss {loss.item():.4f}")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    model.eval()


def padded(rows: list[list[int]], value: int) -> Any:
    """A batch of rows of different length."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def qwen2() -> tuple[Any, Any, dict[str, Any]]:
    """A decoder with a chat template, and its greedy texts."""
    texts = SENTENCES + [question + answer for question, answer in CHATS]
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level(texts, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=CONTEXT,
    )
    words.chat_template = TEMPLATE
    config = transformers.Qwen2Config(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        bos_token_id=None,
    )
    model = transformers.Qwen2ForCausalLM(config)
    rows = [words(f"{text}<|im_end|>").input_ids for text in SENTENCES]
    for question, answer in CHATS:
        chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        rows.append(words(words.apply_chat_template(chat, tokenize=False)).input_ids)
    ids = padded(rows, words.pad_token_id)
    mask = (ids != words.pad_token_id).long()
    train(model, {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}, 300)
    answers = {
        "complete": [_greedy(model, words, prompt) for prompt in PROMPTS],
        "chat": [
            _greedy(model, words, _chat_prompt(words, question)) | {"prompt": question}
            for question, _ in CHATS
        ],
    }
    return model, words, answers


def _chat_prompt(words: Any, question: str) -> str:
    """The prompt of a chat."""
    messages = [{"role": "user", "content": question}]
    return str(words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def t5() -> tuple[Any, Any, dict[str, Any]]:
    """An encoder and a decoder with relative positions, and their greedy texts."""
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=160, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"
    )
    made.train_from_iterator([text for pair in PAIRS for text in pair], trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
    )
    config = transformers.T5Config(
        vocab_size=len(words),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    model = transformers.T5ForConditionalGeneration(config)
    return model, words, _text2text(model, words, 400)


def bart() -> tuple[Any, Any, dict[str, Any]]:
    """An encoder and a decoder with learned positions, and their texts by beam search."""
    made = byte_level([text for pair in PAIRS for text in pair], ["<s>", "<pad>", "</s>", "<unk>"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
    )
    config = transformers.BartConfig(
        vocab_size=len(words),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=CONTEXT,
        dropout=0.0,
    )
    model = transformers.BartForConditionalGeneration(config)
    model.generation_config.update(**BEAMS, forced_bos_token_id=0, forced_eos_token_id=2)
    return model, words, _text2text(model, words, 400)


def _text2text(model: Any, words: Any, steps: int) -> dict[str, Any]:
    sources = padded([words(source).input_ids for source, _ in PAIRS], words.pad_token_id)
    mask = (sources != words.pad_token_id).long()
    labels = padded([words(target).input_ids for _, target in PAIRS], -100)
    train(model, {"input_ids": sources, "attention_mask": mask, "labels": labels}, steps)
    greedy = [_greedy(model, words, text, num_beams=1, min_length=0) for text in INPUTS]
    return {"greedy": greedy, "default": [_greedy(model, words, text) for text in INPUTS]}


def _greedy(model: Any, words: Any, prompt: str, **options: Any) -> dict[str, Any]:
    """The text, and the number of tokens of prompt and text."""
    encoded = words(prompt, return_tensors="pt")
    chosen = {"do_sample": False, "max_new_tokens": NEW_TOKENS, **options}
    made = model.generate(input_ids=encoded.input_ids, attention_mask=encoded.attention_mask, **chosen)[
        0
    ].tolist()
    size = encoded.input_ids.shape[1]
    ids = made[1 if model.config.is_encoder_decoder else size :]
    text = words.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return {"prompt": prompt, "text": text, "prompt_tokens": size, "tokens": len(ids)}


def searches(name: str, folder: Path) -> list[dict[str, Any]]:
    """What transformers' beam search finds for texts that the model has not learned, with the exported files."""
    library: Any = importlib.import_module("optimum.intel")
    with tempfile.TemporaryDirectory() as unpacked:
        for file in (folder / name).iterdir():
            content = file.read_bytes()
            is_packed = file.suffix == ".gz"
            target = Path(unpacked) / (file.stem if is_packed else file.name)
            target.write_bytes(gzip.decompress(content) if is_packed else content)
        model = library.OVModelForSeq2SeqLM.from_pretrained(
            unpacked, ov_config={"INFERENCE_PRECISION_HINT": "f32"}
        )
        words = transformers.AutoTokenizer.from_pretrained(unpacked)
        return [
            _greedy(model, words, text, **rules) | {"rules": rules}
            for rules in RULES + TOKEN_RULES[name]
            for text in UNLEARNED
        ]


def save(name: str, model: Any, words: Any, folder: Path) -> None:
    """Export a model as optimum does, and compress the large files."""
    task = (
        "text2text-generation-with-past" if model.config.is_encoder_decoder else "text-generation-with-past"
    )
    command = shutil.which("optimum-cli", path=str(Path(sys.executable).parent)) or "optimum-cli"
    with tempfile.TemporaryDirectory() as bare:
        model.save_pretrained(bare)
        words.save_pretrained(bare)
        out = Path(bare) / "openvino"
        subprocess.run(
            [command, "export", "openvino", "--model", bare, "--task", task, "--weight-format", "fp16", out],
            check=True,
            capture_output=True,
        )
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
        for file in sorted(out.iterdir()):
            if "tokenizer." in file.name and file.name.startswith("openvino"):
                continue  # hubgate reads tokenizer.json
            if file.suffix in {".xml", ".bin"}:
                (folder / name / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
            else:
                shutil.copyfile(file, folder / name / file.name)


def main(folder: Path) -> None:
    """Record all."""
    answers: dict[str, Any] = {
        "by": {name: version(name) for name in ("transformers", "torch", "optimum-intel", "openvino")}
    }
    for make in (qwen2, t5, bart):
        torch.manual_seed(0)
        model, words, answers[make.__name__] = make()
        save(make.__name__, model, words, folder)
        if make is not qwen2:
            answers[make.__name__]["searches"] = searches(make.__name__, folder)
    (folder / "answers.json").write_text(json.dumps(answers, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
