"""The bare loop that a bulk job is measured against: pyarrow reads, aiohttp asks, pyarrow writes, and nothing else.

    python benchmarks/support/bulk_bare.py IN OUT URL

It is meant to be as good as such a loop can be with little code, so that it flatters nobody. As the gateway does, it asks
for 32 texts at once, eight requests at a time, in base64, decoded to f32 without a float of Python; and it writes the
same columns with the same settings (pyarrow's defaults, a dictionary and Snappy, would cost it a sixth more for
vectors that they cannot pack). It asks for the next rows while it writes the last, so the server never waits.

What it leaves out is what a job is for: no queue, no rate limit, no retry, no check of a vector, nothing on disk before
the end, and nothing forced onto the disk then.
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
"""As the gateway asks: text-embeddings-inference's batch, and the lanes of the queue."""
_JSON = {"content-type": "application/json"}
_SCHEMA = pa.schema({"id": pa.string(), "embedding": pa.list_(pa.float32(), DIMENSIONS)})
_PACKED = {"id": "zstd", "embedding": "none", "embedding.list.element": "none"}
"""As a job writes: vectors do not compress."""


async def main(source: str, output: str, url: str) -> None:
    """Embed a file."""
    slots = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession() as session:

        async def ask(texts: Sequence[str]) -> bytes:
            body = orjson.dumps({"model": "bulk", "input": texts, "encoding_format": "base64"})
            async with slots, session.post(f"{url}/v1/embeddings", data=body, headers=_JSON) as response:
                data = orjson.loads(await response.read())["data"]
            return b"".join(base64.b64decode(item["embedding"]) for item in data)

        with pq.ParquetWriter(
            output, _SCHEMA, compression=_PACKED, use_dictionary=False, write_statistics=["id"]
        ) as writer:

            async def write(ids: pa.Array, asked: asyncio.Future[list[bytes]]) -> None:
                numbers = pa.py_buffer(b"".join(await asked))
                flat = pa.Array.from_buffers(pa.float32(), len(ids) * DIMENSIONS, [None, numbers])
                vectors = pa.FixedSizeListArray.from_arrays(flat, DIMENSIONS)
                writer.write_table(pa.table([ids, vectors], schema=_SCHEMA))

            before = None
            for batch in pq.ParquetFile(source).iter_batches(TEXTS * AT_ONCE * 16):
                texts = batch.column("text").to_pylist()
                starts = range(0, len(texts), TEXTS)
                asked = asyncio.gather(*(ask(texts[start : start + TEXTS]) for start in starts))
                if before is not None:
                    await write(*before)
                before = batch.column("id"), asked
            if before is not None:
                await write(*before)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
