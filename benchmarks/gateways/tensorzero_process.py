"""Serves TensorZero's gateway over HTTP from its Python package; runs in the environment of that package."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

# What tensorzero.patch_openai_client starts in the process of a client.
from tensorzero.tensorzero import _start_http_gateway  # type: ignore[import-not-found]

config, url = sys.argv[1:]
gateway = _start_http_gateway(
    config_file=config, clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
written = Path(url).with_suffix(".part")
written.write_text(gateway.base_url)
written.rename(url)
threading.Event().wait()
