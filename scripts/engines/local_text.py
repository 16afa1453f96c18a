"""Text generated on this machine, compared with transformers, which trains and exports tiny models for it."""

from __future__ import annotations

import gzip
import json
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from running_gateway import RunningGateway

NAME = "local text"
STEPS = (("torch==2.13.0",), ("optimum-intel[openvino]",))
WITHOUT = ("torchvision",)
"""A build for CUDA, which does not load beside a torch for CPUs; transformers would take it for usable."""
NEW_TOKENS = 40


def differences(gateway: RunningGateway, python: Path, program: Path, folder: Path) -> tuple[int, list[str]]:
    """How many texts were compared, and those that differ.

    Args:
        gateway: generates the texts.
        python: of the environment of optimum-intel.
        program: `record_tiny_writers.py`.
        folder: for the models.
    """
    subprocess.run([python, program, folder], check=True, capture_output=True, timeout=1800)
    answers: dict[str, Any] = json.loads((folder / "answers.json").read_text("utf-8"))
    compared, found = 0, []
    for name in ("qwen2", "t5", "bart"):
        for file in (folder / name).glob("*.gz"):
            file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        task = "chat_completion" if name == "qwen2" else "completion"
        gateway.add(name, source="local", model=str(folder / name), task=task)
        expected = answers[name].get("complete") or answers[name]["default"]
        texts = [(one, _complete(gateway, name, one["prompt"])) for one in expected]
        texts += [(one, _chat(gateway, name, one["prompt"])) for one in answers[name].get("chat", [])]
        compared += len(texts)
        found += [
            f"{name}: {one} became {text}" for one, text in texts if (one["text"], one["tokens"]) != text
        ]
    return compared, found


def _complete(gateway: RunningGateway, name: str, prompt: str) -> tuple[str, int]:
    body = {"model": name, "prompt": prompt, "max_tokens": NEW_TOKENS}
    reply = gateway.request("POST", "/v1/completions", body).json()
    return reply["choices"][0]["text"], reply["usage"]["completion_tokens"]


def _chat(gateway: RunningGateway, name: str, question: str) -> tuple[str, int]:
    body = {
        "model": name,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": NEW_TOKENS,
    }
    reply = gateway.request("POST", "/v1/chat/completions", body).json()
    return reply["choices"][0]["message"]["content"], reply["usage"]["completion_tokens"]
