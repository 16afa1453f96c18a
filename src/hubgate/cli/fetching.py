"""Downloading a local model before it is registered, so that whoever waits in a terminal sees how far it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from hubgate.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable


def fetch(model: str, token: str | None) -> None:
    """Have a model's files in the download cache, where the gate finds them.

    Only in a terminal: elsewhere the gate itself downloads, and writes its log. The gate has the last word anyhow: what
    fails here it tries again, and tells why it fails.
    """
    if not sys.stderr.isatty():
        return
    import asyncio

    from hubgate.domain.errors import HubgateError
    from hubgate.domain.secret import Secret
    from hubgate.upstreams.local.files import find_model

    bearer = Secret(token) if token else None
    told = progress(model, sys.stderr)
    try:
        asyncio.run(find_model(model, hf_endpoint=Settings.from_env().hf_endpoint, token=bearer, told=told))
    except HubgateError:
        pass
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def progress(model: str, out: TextIO) -> Callable[[int, int], None]:
    """Writes one line over and over: how many megabytes of a model are here, of how many."""
    shown = ""

    def told(done: int, known: int) -> None:
        nonlocal shown
        share = f" ({100 * done // known} %)" if known else ""
        line = f"Downloading {model}: {done / 1e6:.1f} of {known / 1e6:.1f} MB{share}"
        if line != shown:
            shown = line
            print(f"\r\x1b[K{line}", end="", file=out, flush=True)

    return told
