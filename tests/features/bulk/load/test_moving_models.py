"""The recipe for pgvector of docs/changing-models.md, command by command, on a real PostgreSQL."""

from __future__ import annotations

import json
import re
import shlex
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import psycopg

if TYPE_CHECKING:
    import pytest
    from commands import Command
    from running_gateway import RunningGateway

PAGE = (Path(__file__).parents[4] / "docs" / "changing-models.md").read_text("utf-8")
WORDS = ["harbour", "gate", "dawn", "bread", "river", "stone", "lamp", "winter"]


def blocks(language: str) -> list[str]:
    recipe = PAGE.partition("### pgvector\n")[2].partition("\n### ")[0]
    return re.findall(rf"```{language}\n(.*?)```", recipe, re.DOTALL)


def test_queries_find_their_document_before_during_and_after_the_move(
    hubgate: Command,
    gateway: RunningGateway,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS[:2]]
    rows = [{"id": f"r{n}", "body": text} for n, text in enumerate(texts)]
    Path("articles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, dimensions in (("e5", 32), ("e5-new", 48)):
        gateway.add(name, dimensions=dimensions)
    target = database_url.replace("postgresql://", "pgvector://", 1)

    def run(block: str) -> None:
        for line in block.replace("pgvector://app@db/app", shlex.quote(target)).splitlines():
            program, *arguments = shlex.split(line)
            assert program == "hubgate"
            ended = hubgate(*arguments)
            assert ended.status == 0, ended.err

    today, move = blocks("sh")
    (function,) = blocks("python")
    run(today)
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.admin_key) as client,
        psycopg.connect(database_url, autocommit=True) as database,
    ):
        names: dict[str, Any] = {"client": client, "database": database}
        exec(compile(function, "docs/changing-models.md", "exec"), names)  # noqa: S102 - of our own page
        stopping, wrong, asked = threading.Event(), [], 0

        def query() -> None:
            nonlocal asked
            while not stopping.is_set():
                number = asked % len(texts)
                found = [row[0] for row in names["nearest"](texts[number])]
                if f"r{number}" not in found:
                    wrong.append((texts[number], found))
                asked += 1

        thread = threading.Thread(target=query)
        thread.start()
        try:
            run(move)
            after = asked
        finally:
            stopping.set()
            thread.join()
        assert client.embeddings.create(model="search", input="x").model == "e5-new"
        assert names["nearest"](texts[3])
    assert wrong == []
    assert after > 3
