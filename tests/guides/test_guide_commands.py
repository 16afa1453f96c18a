"""Runs the guide from start to end: `make serve`, every command, every request and every snippet."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

from guide_pages import guide
from guide_world import GATE, TOKEN, world

if TYPE_CHECKING:
    from pathlib import Path

    from guide_world import World

RUNNER = """
import json, sys
for code in json.load(sys.stdin):
    print("\\n=====", flush=True)
    exec(compile(code, "<guide>", "exec"), {"__name__": "__main__"})
"""
PRINTED = {
    "OpenAI(": "You said: Good morning",
    'input_type="search"': "[",
    "put_hugging_face": "",
    "OpenAIEmbeddings(": "You said: Good morning",
    "InferenceClient(": "(1, 8)\nYou said: Good morning\nYou said: The harbour town",
}
"""By what a snippet is known: something that it prints."""
ELSEWHERE = "langchain_huggingface"
"""It does not install beside the tests: `make test-clients` runs its snippet."""
COMMANDS = {
    "key create guide": '"embedding":[',
    "connection add": "Added chat: chat_completion, ",
    "--namespace": "Added writer: completion, ",
    "deploy create": "Registered small.",
    "--local": "384 dimensions",
    "edit e5": "requests_per_minute: 300",
    "key create dify": "hg_",
    "/v1/rerank": '"relevance_score"',
    "job run": "vectors  1",
    "doctor": "e5 is healthy.",
    "config export": "Nothing to change.",
}
"""By what a block is known: something that it prints."""


def test_every_step_of_the_guide_works(tmp_path: Path) -> None:
    start, *blocks = guide("en").blocks
    with world(tmp_path) as reader, reader.serving(start.text.strip()) as output:
        assert "Your admin key, shown only this once:" in output
        commands = [block.text for block in blocks if block.language == "sh"]
        for known, command in zip(COMMANDS, commands, strict=True):
            assert known in command
            assert COMMANDS[known] in reader.run(command), command
        for named in guide("en").code:
            if named.startswith("hubgate "):
                assert "meta/llama" in reader.run(named), named
        key = reader.run('echo "$HUBGATE_KEY"').strip()
        admin = reader.run("hubgate key create kibana --admin").strip()
        # The gateway stands in for Elasticsearch, whose inference API it answers.
        reader.written |= {
            "YOUR_HUBGATE_KEY": key,
            "http://localhost:9200": reader.written[GATE],
            "YOUR_ELASTICSEARCH_KEY": admin,
        }
        for block in blocks:
            if block.language == "console":
                send(reader, block.text, admin)
        snippets = [
            block.text for block in blocks if block.language == "python" and ELSEWHERE not in block.text
        ]
        _, *outputs = printed([reader.filled(snippet) for snippet in snippets]).split("=====\n")
        for known, snippet, answer in zip(PRINTED, snippets, outputs, strict=True):
            assert known in snippet
            assert PRINTED[known] in answer, snippet
        assert TOKEN not in (tmp_path / "hubgate.yaml").read_text()


def send(reader: World, request: str, key: str) -> None:
    """Send a block as Kibana's console does: method and path, then the body."""
    first, _, body = reader.filled(request).partition("\n")
    method, path = first.split()
    headers = {"Authorization": f"ApiKey {key}", "Content-Type": "application/json"}
    asked = urllib.request.Request(f"{reader.written[GATE]}/{path}", body.encode(), headers, method=method)
    with urllib.request.urlopen(asked, timeout=240) as answer:
        assert json.load(answer)["service"] == "hugging_face"


def printed(snippets: list[str]) -> str:
    """Output of snippets that run in sequence in one interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(snippets),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
