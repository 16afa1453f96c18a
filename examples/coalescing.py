"""Indexing with Dify under a small rate limit: 64 threads, one text a request, 60 requests a minute.

    python examples/coalescing.py            # 640 texts: about half a minute

The model's server takes 32 texts a request and answers 429 beyond its 60 requests a minute. Called directly, most texts
fail. Through the gateway each waits a moment, shares a request with others, and none fails. Needs a checkout of hubgate
and `make install`: the server is one of the tests' look-alikes, and the gateway is started in a folder of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from lookalikes import LookAlike, lookalike, vector_of

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS = 64
RATE_LIMIT = 60
TEXTS_A_REQUEST = 32


class Outcome(NamedTuple):
    """The results of one run."""

    answered: int
    refused: int
    requests: int
    """Received by the model server."""
    seconds: float


def index(base_url: str, key: str, texts: list[str], server: LookAlike) -> Outcome:
    """Embed every text as Dify's plugin for text-embeddings-inference does, from many threads at once."""
    before, start = len(server.posts), time.monotonic()
    with ThreadPoolExecutor(THREADS) as threads:
        statuses = Counter(threads.map(lambda text: embed(base_url, key, text, server), texts))
    seconds = time.monotonic() - start
    assert set(statuses) <= {200, 429}, statuses
    return Outcome(statuses[200], statuses[429], len(server.posts) - before, seconds)


def embed(base_url: str, key: str, text: str, server: LookAlike) -> int:
    """The status of one request; a vector that is not this text's ends the scene."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    body = json.dumps({"input": [text]}).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{base_url}/v1/embeddings", body, headers), timeout=60
        ) as reply:
            vector = json.load(reply)["data"][0]["embedding"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    wanted = vector_of(text, server.model.dimensions)
    assert max(abs(a - b) for a, b in zip(vector, wanted, strict=True)) < 1e-6, "another text's vector"
    return 200


@contextmanager
def gateway(server: LookAlike) -> Iterator[tuple[str, str]]:
    """A gateway with the server registered as `e5`; its base URL for Dify, and a key."""
    with tempfile.TemporaryDirectory() as folder:
        home = {"HUBGATE_HOME": f"{folder}/home", "HUBGATE_SECRET_KEY_FILE": f"{folder}/secret.key"}
        env = os.environ | home | {"HUBGATE_PORT": "0", "HUBGATE_LOG_LEVEL": "warning"}
        hubgate = [sys.executable, "-m", "hubgate"]
        add = [*hubgate, "add", "e5", "--url", server.url, "--requests-per-minute", str(RATE_LIMIT)]
        subprocess.run(add, env=env, check=True, capture_output=True)
        create = subprocess.run(
            [*hubgate, "key", "create", "dify"], env=env, check=True, stdout=subprocess.PIPE, text=True
        )
        serving = subprocess.Popen([*hubgate, "serve"], env=env, stdout=subprocess.PIPE, text=True)
        with serving:
            assert serving.stdout is not None
            url = serving.stdout.readline().split()[-1]
            try:
                yield f"{url}/hf/e5", create.stdout.strip()
            finally:
                serving.terminate()


def main() -> None:
    """Play the scene without the gateway, then with it."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 640
    texts = [f"Paragraph {number} of the handbook." for number in range(count)]
    print(
        f"{count} texts from {THREADS} threads, one a request. The server takes {RATE_LIMIT} requests a minute and "
        f"{TEXTS_A_REQUEST} texts a request, so at best it is asked {-(-count // TEXTS_A_REQUEST)} times.\n"
    )
    print(f"{'':<18}{'answered':>9}{'429':>6}{'requests':>10}{'seconds':>9}")
    with lookalike("tei", rate_limit=(RATE_LIMIT, 60.0), max_batch=TEXTS_A_REQUEST) as server:
        tell("without hubgate", index(server.url, "", texts, server))
    with (
        lookalike("tei", rate_limit=(RATE_LIMIT, 60.0), max_batch=TEXTS_A_REQUEST) as server,
        gateway(server) as (url, key),
    ):
        tell("with hubgate", index(url, key, texts, server))


def tell(label: str, outcome: Outcome) -> None:
    """One row of the table."""
    print(
        f"{label:<18}{outcome.answered:>9}{outcome.refused:>6}{outcome.requests:>10}{outcome.seconds:>9.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
