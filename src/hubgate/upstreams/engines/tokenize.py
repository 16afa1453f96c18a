"""TEI's `/tokenize`: the one server whose route takes many texts and tells where each token stands."""

from __future__ import annotations

import msgspec

from hubgate.domain.calls import Token, Tokenize, Tokens
from hubgate.domain.errors import Cause, UpstreamUnreadable
from hubgate.upstreams.engines.embedders import json_request
from hubgate.upstreams.http.messages import HttpReply, HttpRequest

ROUTE = "/tokenize"


class _Token(msgspec.Struct):
    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None


_TEXTS = msgspec.json.Decoder(list[msgspec.Raw])
_TOKENS = msgspec.json.Decoder(list[_Token])


def tokenize_request(url: str, call: Tokenize) -> HttpRequest:
    """The request for one call to the route at `url`."""
    return json_request(url, {"inputs": list(call.texts), "add_special_tokens": call.add_special_tokens})


def read_tokens(call: Tokenize, reply: HttpReply) -> Tokens:
    """The tokens of each text.

    Raises:
        UpstreamUnreadable: the reply does not hold them.
    """
    try:
        # Text by text: one call for all of a large reply would hold up the event loop even from another thread.
        texts = [_TOKENS.decode(text) for text in _TEXTS.decode(reply.body)]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UpstreamUnreadable("The server's reply to /tokenize holds no tokens.") from error
    if len(texts) != len(call.texts):
        raise UpstreamUnreadable(
            f"The server sent the tokens of {len(texts)} texts for {len(call.texts)}.",
            cause=Cause.WRONG_COUNT,
        )
    return Tokens([[Token(t.id, t.text, t.special, t.start, t.stop) for t in tokens] for tokens in texts])
