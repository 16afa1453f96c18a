"""Semantic search over your own files: each paragraph becomes a vector, and a question finds the nearest paragraphs.

    python examples/search.py "how do I keep a password safe?" notes/ README.md

Needs a running gateway and a key: HUBGATE_KEY, HUBGATE_URL (http://127.0.0.1:8080) and an embedding endpoint,
HUBGATE_MODEL (all-minilm-l6-v2). The gateway caches vectors, so the second question is answered at once.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from array import array
from pathlib import Path

URL = os.environ.get("HUBGATE_URL", "http://127.0.0.1:8080")
MODEL = os.environ.get("HUBGATE_MODEL", "all-minilm-l6-v2")
BATCH = 64


def embed(texts: list[str]) -> list[array[float]]:
    """One vector of length 1 per text."""
    body = json.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"}).encode()
    headers = {"Authorization": f"Bearer {os.environ['HUBGATE_KEY']}", "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{URL}/v1/embeddings", body, headers)) as reply:
            return [array("f", base64.b64decode(item["embedding"])) for item in json.load(reply)["data"]]
    except urllib.error.HTTPError as error:
        sys.exit(json.load(error)["error"]["message"])
    except OSError as error:
        sys.exit(f"No gateway answers at {URL} ({error}). Start it with `make serve`, or set HUBGATE_URL.")


def paragraphs(names: list[str]) -> list[tuple[Path, str]]:
    """The paragraphs of all text files, without headings and very short lines, each with its file."""
    found, skipped = [], 0
    for name in names:
        for file in sorted(Path(name).rglob("*")) if Path(name).is_dir() else [Path(name)]:
            try:
                blocks = file.read_text("utf-8").split("\n\n") if not file.is_dir() else []
            except (OSError, UnicodeDecodeError):
                skipped += 1
                continue
            found += [(file, block.strip()) for block in blocks if len(block.strip()) > 40]
    if skipped:
        print(f"Skipped {skipped} files that cannot be read as UTF-8 text.", file=sys.stderr)
    return found


def main() -> None:
    """Print the three best paragraphs, best first."""
    if len(sys.argv) < 3 or "HUBGATE_KEY" not in os.environ:
        sys.exit('Usage: HUBGATE_KEY=… python search.py "question" FILE_OR_FOLDER…')
    question, *names = sys.argv[1:]
    found = paragraphs(names)
    if not found:
        sys.exit("No paragraph of more than 40 characters found.")
    vectors: list[array[float]] = []
    for start in range(0, len(found), BATCH):
        vectors += embed([text for _, text in found[start : start + BATCH]])
        print(f"\r{len(vectors):,} of {len(found):,} paragraphs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    [asked] = embed([question])
    scores = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in vectors]
    for score, (file, text) in sorted(zip(scores, found, strict=True), reverse=True)[:3]:
        print(f"{score:.3f}  {file}: {' '.join(text.split())[:160]}")


if __name__ == "__main__":
    main()
