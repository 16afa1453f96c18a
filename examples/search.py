"""Semantic search in forty lines: each paragraph becomes a vector, and a question finds the paragraph that answers it.

    python examples/search.py "how do I keep a password safe?" notes/*.txt

Needs a running gate: HUBGATE_URL (http://127.0.0.1:8080), HUBGATE_KEY, and an embedding endpoint, HUBGATE_MODEL
(all-minilm-l6-v2).
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.request
from array import array
from pathlib import Path

URL = os.environ.get("HUBGATE_URL", "http://127.0.0.1:8080")
MODEL = os.environ.get("HUBGATE_MODEL", "all-minilm-l6-v2")


def embed(texts: list[str]) -> list[array[float]]:
    """One vector a text, of length one."""
    body = json.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"}).encode()
    headers = {"Authorization": f"Bearer {os.environ['HUBGATE_KEY']}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{URL}/v1/embeddings", body, headers)) as reply:
        return [array("f", base64.b64decode(item["embedding"])) for item in json.load(reply)["data"]]


def paragraphs(paths: list[str]) -> list[str]:
    """The paragraphs of all files, headings and very short lines left out."""
    blocks = [block.strip() for path in paths for block in Path(path).read_text("utf-8").split("\n\n")]
    return [block for block in blocks if len(block) > 40]


def main() -> None:
    """Print the three best paragraphs, best first."""
    question, *paths = sys.argv[1:]
    texts = paragraphs(paths)
    asked, *vectors = embed([question, *texts])
    scores = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in vectors]
    for score, text in sorted(zip(scores, texts, strict=True), reverse=True)[:3]:
        print(f"{score:.3f}  {' '.join(text.split())[:160]}")


if __name__ == "__main__":
    main()
