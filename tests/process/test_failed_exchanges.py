"""Failed exchanges leak no memory; `benchmarks/failed_replies.py` shows it at full size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lookalikes import lookalike

if TYPE_CHECKING:
    from gateway_process import GatewayProcess, Home

CHAT = {"messages": [{"role": "user", "content": "x" * 8_000_000}]}
CALLS = 16
IN_A_ROW = 4
"""Failures after which the circuit breaker still lets the next call pass."""
MOST_GROWTH = 60_000_000


def resident(gateway: GatewayProcess) -> int:
    """Bytes of memory that the process has."""
    lines = Path(f"/proc/{gateway.pid}/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def test_failing_calls_of_8_mb_leak_no_memory(home: Home) -> None:
    with (
        lookalike("vllm", kind="llm") as server,
        home.serve() as gateway,
    ):
        form = {"name": "llm", "url": server.url, "task": "chat_completion"}
        assert gateway.request("POST", "/api/endpoints", form, key=home.admin_key).status == 201

        def fail() -> None:
            server.fail("half")
            for _ in range(IN_A_ROW):
                path = "/_inference/chat_completion/llm?timeout=400ms"  # too short for another try
                assert gateway.request("POST", path, CHAT, key=home.admin_key).status in {400, 429}
            server.heal()
            assert gateway.request("POST", "/api/endpoints/llm/check", key=home.admin_key).status == 200

        fail()
        before = resident(gateway)
        for _ in range(CALLS // IN_A_ROW):
            fail()
        assert resident(gateway) - before < MOST_GROWTH
