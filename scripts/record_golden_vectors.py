"""Record the expected vectors of hubgate's own runtime, with sentence-transformers as the reference.

Run once in an environment of its own, with the CPU build of torch and sentence-transformers, and commit the file:

    python scripts/record_golden_vectors.py MODEL_FOLDER tests/data/golden/all-minilm-l6-v2.json
"""

from __future__ import annotations

import base64
import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

LONG = (
    "The harbour wakes before the town does. Boats come in with the first light, and the gulls know every one of them. "
    "On the quay the ice is weighed, the nets are counted and the prices are called out, until the market bell ends it. "
)
TEXTS = [
    "",
    " ",
    "hello",
    "Hello",
    "hello world",
    "A gate between applications and the models they ask.",
    "Which paragraph explains how long a request may wait?",
    "The quick test of a tokenizer: don't, can't, e-mail, 3.14159, $5.00, C++ and #hashtags.",
    "Überraschend schöne Grüße aus Köln und Zürich.",
    "Où est la bibliothèque ? Elle est fermée jusqu'à mardi.",
    "El niño soñó con una montaña de cien años.",
    "Быстрая проверка: сколько слов помещается в одно окно?",
    "هر درخواست در صف خود می‌ماند تا نوبتش برسد.",
    "پنجرهٔ مدل کوتاه است و متن بلند بریده می‌شود.",
    "كل طلب ينتظر دوره في الطابور.",
    "כל בקשה ממתינה לתורה.",
    "每个请求都在队列里等待。",
    "向量必须和参考实现一致，否则搜索结果就会出错。",
    "検索のために文章をベクトルに変換します。",
    "모든 문장은 벡터가 된다.",
    "ข้อความนี้ไม่มีช่องว่างระหว่างคำ",
    "हर वाक्य एक सदिश बन जाता है।",
    "🚀🌍 emoji, 👩‍👩‍👧‍👦 families and 🇮🇷 flags",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 beyond the basic plane: 𠜎𠜱𠝹",
    "combining: e\u0301 and precomposed: \u00e9",
    "tabs\tand\nnew lines\r\nand a no-break\u00a0space",
    "[CLS] special words [SEP] inside a text [MASK]",
    "NUL\u0000 and other control characters \u0007\u001b",
    "def embed(texts: list[str]) -> list[bytes]:\n    return [model(text) for text in texts]",
    "a" * 120,
    "word " * 253 + "end",
    "word " * 254 + "end",
    "word " * 255 + "end",
    LONG * 2,
    LONG * 12,
    "向量" * 200,
    "ذخیرهٔ بردارها در حافظه. " * 30,
]


def main(folder: str, out: str) -> None:
    """Embed the texts one by one, so that no padding takes part, and write them with the versions of the tools."""
    library = importlib.import_module("sentence_transformers")
    model = library.SentenceTransformer(folder, device="cpu")
    rows = [
        {"text": text, "vector": base64.b64encode(model.encode(text).astype("<f4").tobytes()).decode()}
        for text in TEXTS
    ]
    tools = {name: version(name) for name in ("sentence-transformers", "transformers", "tokenizers", "torch")}
    record = {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "max_seq_length": model.max_seq_length,
        "tools": tools,
        "rows": rows,
    }
    Path(out).write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} vectors written to {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
