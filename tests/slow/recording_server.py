"""A server process that can be suspended: prints its URL, then two counts for each input line.

The counts are the most requests in any minute and all requests, both since the previous line.
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
