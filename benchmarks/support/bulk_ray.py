"""The same with Ray Data, as its guides do it: batches mapped by a class that asks, on both cores. Run by Ray's Python.

python benchmarks/support/bulk_ray.py IN OUT URL
"""

from __future__ import annotations

import base64
import json
import sys
import urllib.request

import numpy as np
import ray  # in an environment of its own

TEXTS, AT_ONCE = 32, 8


class Model:
    """Asks for a batch of 32; eight of them are at work."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The ids and vectors of a batch."""
        body = {"model": "bulk", "input": batch["text"].tolist(), "encoding_format": "base64"}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._url}/v1/embeddings", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            data = json.load(response)["data"]
        vectors = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data]
        return {"id": batch["id"], "embedding": np.stack(vectors)}


def main(source: str, output: str, url: str) -> None:
    """Embed a file."""
    # Four, on two cores: those who ask only wait, and Ray counts a whole core for each task that reads or writes.
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    rows = ray.data.read_parquet(source, override_num_blocks=4 * AT_ONCE)
    pool = ray.data.ActorPoolStrategy(size=AT_ONCE)
    done = rows.map_batches(
        Model, fn_constructor_args=(url,), batch_size=TEXTS, compute=pool, num_cpus=0.2, batch_format="numpy"
    )
    done.write_parquet(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
