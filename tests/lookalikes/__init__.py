"""Small real servers that behave like the ones hubgate calls, including their faults.

    with lookalike("tei", dimensions=16) as server:
        ...                                  # server.url
        server.batches                       # the texts of each embedding request
        server.fail("waking-503", times=2)   # the next two requests; see `faults.FAULTS` for all names

Each listens on a loopback port in a thread of its own, so that sync and async tests can use it.
"""

from lookalikes.model import Model, ReceivedRequest, token_count, vector_of
from lookalikes.server import LookAlike, lookalike

__all__ = ["LookAlike", "Model", "ReceivedRequest", "lookalike", "token_count", "vector_of"]
