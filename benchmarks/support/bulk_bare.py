"""The bare loop that a bulk job is measured against: pyarrow reads, aiohttp asks, pyarrow writes, and nothing else.

    python benchmarks/support/bulk_bare.py IN OUT URL

No queue, no allowance, no retry, no check, no file on disk before the end is reached.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from typing import TYPE_CHECKING

import aiohttp
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Sequence

DIMENSIONS = 384
TEXTS, AT_ONCE = 32, 8
"""As the gate asks: text-embeddings-inference's batch, and the lanes of the queue."""


async def main(source: str, output: str, url: str) -> None:
    """Embed a file."""
    slots = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession() as session:

        async def ask(texts: Sequence[str]) -> bytes:
            body = orjson.dumps({"model": "bulk", "input": texts, "encoding_format": "base64"})
            async with slots, session.post(f"{url}/v1/embeddings", data=body, headers=_JSON) as response:
                data = orjson.loads(await response.read())["data"]
            return b"".join(base64.b64decode(item["embedding"]) for item in data)

        schema = pa.schema({"id": pa.string(), "embedding": pa.list_(pa.float32(), DIMENSIONS)})
        with pq.ParquetWriter(output, schema) as writer:
            for batch in pq.ParquetFile(source).iter_batches(TEXTS * AT_ONCE * 16):
                texts = batch.column("text").to_pylist()
                asked = (ask(texts[start : start + TEXTS]) for start in range(0, len(texts), TEXTS))
                numbers = pa.py_buffer(b"".join(await asyncio.gather(*asked)))
                flat = pa.Array.from_buffers(pa.float32(), len(texts) * DIMENSIONS, [None, numbers])
                vectors = pa.FixedSizeListArray.from_arrays(flat, DIMENSIONS)
                writer.write_table(pa.table([batch.column("id"), vectors], schema=schema))


_JSON = {"content-type": "application/json"}

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
