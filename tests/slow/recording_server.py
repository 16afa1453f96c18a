"""A server as a process, so that it can be stopped: prints its URL; with each line it reads it prints what came since.

That is the number of requests in the fullest minute, and of all.
"""

from __future__ import annotations

import sys

from lookalikes import lookalike

if __name__ == "__main__":
    with lookalike("tgi", seconds=0.02) as server:
        print(server.url, flush=True)
        for _ in sys.stdin:
            print(server.most_in(60.0), len(server.posts), flush=True)
            server.requests.clear()
