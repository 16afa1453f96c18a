"""What two changes of the local all-MiniLM-L6-v2 do to a search: prefixes, and fewer dimensions, by `hubgate compare`.

    python benchmarks/compare_here.py

The texts are the paragraphs of this repository's documentation; the command takes a fifth of them as queries.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_HUBGATE = (sys.executable, "-m", "hubgate")
_DOCS = Path(__file__).parents[1] / "docs"
_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_PREFIXES = ("--prefix-query", "query: ", "--prefix-document", "passage: ")
_DIMENSIONS = (256, 128, 64)


def main() -> None:
    """Compare and print."""
    with tempfile.TemporaryDirectory() as made:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HUBGATE_", "HF_"))}
        env |= {"HOME": made, "HUBGATE_HOME": f"{made}/home", "HUBGATE_PORT": "0", "HF_HUB_OFFLINE": "1"}

        def hubgate(*arguments: str) -> str:
            done = subprocess.run(
                [*_HUBGATE, *arguments], env=env, check=True, stdout=subprocess.PIPE, text=True
            )
            return done.stdout

        texts = Path(made, "texts.jsonl")
        _write(texts, _paragraphs())
        files = ("--texts", str(texts))
        hubgate("add", "mini", "--local", _MODEL)
        hubgate("add", "prefixed", "--local", _MODEL, *_PREFIXES)
        print(f"# prefixes\n{hubgate('compare', 'mini', 'prefixed', *files)}", flush=True)
        for dimensions in _DIMENSIONS:
            cut = hubgate("compare", "mini", "mini", "--dimensions", str(dimensions), *files)
            print(f"# {dimensions} of 384 dimensions\n{cut}", flush=True)


def _paragraphs() -> list[str]:
    found = (part for page in sorted(_DOCS.glob("*.md")) for part in page.read_text().split("\n\n"))
    return list(
        dict.fromkeys(part.strip() for part in found if len(part) > 80 and not part.startswith("```"))
    )


def _write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


if __name__ == "__main__":
    main()
