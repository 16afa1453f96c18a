"""Who changes the gate: set where a request comes in, read where a change is written down."""

from __future__ import annotations

from contextvars import ContextVar

ACTOR: ContextVar[str] = ContextVar("actor", default="gate")
"""A gateway key's id, `cli`, `console`, or `gate` for what the gate does by itself."""
