"""Runs llama.cpp's HTTP server until it is told to stop, as its program `llama-server` would, which `xllamacpp` lacks.

Run in the environment of llama.cpp. The model is a folder of Hugging Face, written as a GGUF first.
"""

from __future__ import annotations

import argparse
import importlib
import signal
from pathlib import Path
from typing import Any

gguf_file: Any = importlib.import_module("gguf_file")
xllamacpp: Any = importlib.import_module("xllamacpp")


def main() -> None:
    """Take the options of `llama-server` that are needed here."""
    parser = argparse.ArgumentParser()
    for option in ("--model", "--alias", "--api-key", "--host", "--port"):
        parser.add_argument(option, required=True)
    parser.add_argument("--embeddings", action="store_true")
    parser.add_argument("--reranking", action="store_true")
    given = parser.parse_args()
    file = Path(f"{Path(given.model).name}.gguf")
    gguf_file.main(Path(given.model), file)
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = str(file), {given.alias}
    params.hostnames, params.port, params.api_keys = [given.host], int(given.port), [given.api_key]
    params.n_gpu_layers, params.n_parallel, params.n_ctx = 0, 4, 0
    params.cpuparams.n_threads, params.fit_params, params.kv_unified = 2, False, True
    params.sampling.temp = 0.0
    if given.embeddings or given.reranking:
        params.embedding = True
    if given.reranking:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
