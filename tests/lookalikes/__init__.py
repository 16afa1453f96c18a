"""Small real servers that behave as the ones hubgate speaks to, faults included.

    with lookalike("tei", dimensions=16) as server:
        ...                                  # server.url
        server.batches                       # the texts of each request to embed
        server.fail("waking-503", times=2)   # the next two requests; see `faults.FAULTS` for all names

They listen on a port of loopback, in a thread of their own, so that sync and async tests use them alike.
"""

from lookalikes.model import Asked, Model, token_count, vector_of
from lookalikes.server import LookAlike, lookalike

__all__ = ["Asked", "LookAlike", "Model", "lookalike", "token_count", "vector_of"]
