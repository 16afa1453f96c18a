"""A model server whose failures are selected by the path, run as a process: `failing_server.py PORT`.

    /ok          a small answer
    /close       takes the request, and closes
    /cut         begins an answer, and closes
    /hang        never answers
    /refuse      400
    /plain/N     an answer of N bytes, in chunks without a length
    /gzip/N      an answer of N bytes, compressed a thousandfold
    /legal/N     a chat completion of N bytes, with its length

Whatever the path, the gateway's own question at registration gets a small answer, as does every request that holds
the word `well`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import sys
import zlib

_ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]
}
_MODELS = {"object": "list", "data": [{"id": "m", "owned_by": "vllm", "max_model_len": 512}]}
_PIECE = bytes(1 << 18)
_WELL = (b"how big", b"well")


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, for one request."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((line for line in lines if line.startswith(b"content-length:")), b":0")
        body = await reader.readexactly(int(length.partition(b":")[2]))
        path = head.split(b" ", 2)[1].decode()
        if not body:
            write(writer, _MODELS)
        elif any(word in body[-200:] for word in _WELL):
            write(writer, _ANSWER)
        else:
            _, kind, *rest = path.split("/")
            await fail(kind, int(rest[0]) if rest[0].isdigit() else 0, reader, writer)
        await writer.drain()
    writer.close()


def write(writer: asyncio.StreamWriter, answer: object, status: bytes = b"200 OK") -> None:
    """A whole answer."""
    body = json.dumps(answer).encode()
    head = b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % (status, len(body)) + body)


async def fail(kind: str, size: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as the path says."""
    match kind:
        case "cut":
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"choices": [')
        case "hang":
            await reader.read()
        case "refuse":
            write(writer, {"error": "no"}, b"400 Bad Request")
        case "plain":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(size // len(_PIECE)):
                writer.write(b"%x\r\n%b\r\n" % (len(_PIECE), _PIECE))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        case "gzip":
            packed = compressed(size)
            head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % len(packed) + packed)
        case "legal":
            body = completion(size)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)


@functools.cache
def compressed(size: int) -> bytes:
    """So many bytes of nothing, as gzip."""
    packer = zlib.compressobj(wbits=31)
    return b"".join([*(packer.compress(_PIECE) for _ in range(size // len(_PIECE))), packer.flush()])


@functools.cache
def completion(size: int) -> bytes:
    """A chat completion of exactly so many bytes, of tokens with their probabilities, as JSON is slowest to read."""
    token = (
        b'{"token":"\xc3\xa9t\xc3\xa9","logprob":-0.12345,"bytes":[195,169,116,195,169],"top_logprobs":[]},'
    )
    begin = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop","logprobs":{"content":['
    end = b'{"token":"","logprob":0.0}]}}]}'
    count, rest = divmod(size - len(begin) - len(end), len(token))
    return begin + token * count + b" " * rest + end


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 20)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
