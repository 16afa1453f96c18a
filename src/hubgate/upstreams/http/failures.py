"""Why no reply came: what goes wrong on a socket, in the words of `domain.errors`."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urljoin

from hubgate.domain.errors import (
    Cause,
    HubgateError,
    InvalidEndpoint,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from hubgate.upstreams.urls import host_of

_NO_NAME_SERVER = frozenset({socket.EAI_AGAIN, socket.EAI_FAIL})
_NOT_TYPED = frozenset({"huggingface.co", "router.huggingface.co", "api.endpoints.huggingface.cloud"})
"""Hosts that hubgate knows by itself, so that nobody can have misspelled them."""
_NETWORK = "Check the network connection and the DNS settings of hubgate's machine."


class NotHttp(Exception):
    """What came is no HTTP."""


class HeadersTooLarge(Exception):
    """The headers of the reply are larger than they may be."""


class TooLarge(Exception):
    """The body of the reply is larger than it may be."""


class Unpackable(Exception):
    """The body is not compressed as it says."""


TROUBLE = (OSError, NotHttp, HeadersTooLarge, TooLarge, Unpackable)  # a TimeoutError is an OSError
"""What an exchange on a connection may end with."""


def failure(error: Exception, where: str, timeout: float) -> HubgateError:
    """The error to raise for one of `TROUBLE` while asking `where` (scheme, host and port).

    Args:
        error: what happened.
        where: how messages name the server.
        timeout: seconds that it had.
    """
    match error:
        case TimeoutError():
            return UpstreamUnreachable(
                f"{where} did not answer within {timeout:g} seconds.",
                remedy="It may be overloaded, or the texts too many for one request.",
                cause=Cause.UPSTREAM_TIMEOUT,
            )
        case NotHttp():
            return UpstreamUnreadable(
                f"{where} does not speak HTTP as a web server does.",
                remedy="Check the port, and whether it must be https://.",
                cause=Cause.NOT_AN_API,
            )
        case HeadersTooLarge():
            return UpstreamUnreadable(
                f"{where} sent response headers that are too large.",
                remedy="Check the server's configuration.",
            )
        case Unpackable():
            return UpstreamUnreadable(f"{where} sent a compressed reply that cannot be unpacked.")
        case _:
            return UpstreamUnreachable(
                f"{where} closed the connection before its reply was complete.",
                remedy="It, or a proxy before it, may have crashed or run out of memory: look at its log.",
                cause=Cause.CONNECTION_LOST,
            )


def too_large(where: str, bound: int, *, is_setting: bool) -> UpstreamUnreadable:
    """The error for a reply of more than `bound` bytes.

    Args:
        where: how messages name the server.
        bound: bytes that the body might have.
        is_setting: whether the bound is the operator's, and not what the answer to the request can need.
    """
    if is_setting:
        return UpstreamUnreadable(
            f"{where} sent a reply of more than {bound} bytes, the limit set by HUBGATE_MAX_REPLY_BYTES.",
            remedy="Ask for less in one request (fewer texts, choices or log probabilities), or raise the limit.",
        )
    return UpstreamUnreadable(
        f"{where} sent a reply of more than {bound} bytes, far more than an answer to this request needs.",
        remedy="Check that the endpoint's URL and engine are those of the registered model.",
    )


@asynccontextmanager
async def connecting_to(where: str, seconds: float) -> AsyncIterator[None]:
    """Tell why no connection comes about, with TLS or without.

    Raises:
        UpstreamUnreachable: instead of any OSError, or after `seconds`.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UpstreamUnreachable(
            f"No connection to {where} came about in time.",
            remedy="Check the address and the port, and whether a firewall stands between.",
            cause=Cause.UPSTREAM_TIMEOUT,
        ) from error
    except ssl.SSLError as error:
        raise UpstreamUnreachable(
            f"No TLS connection to {where}: {_tls_reason(error)}.",
            remedy="Use the name that the certificate is for, let the gate's system trust its issuer, or use http:// "
            "where the server has no TLS.",
            cause=Cause.TLS_FAILED,
            retryable=False,
        ) from error
    except ConnectionRefusedError as error:
        raise UpstreamUnreachable(
            f"Nothing listens at {where}.",
            remedy="Start the server, or check the port.",
            cause=Cause.CONNECTION_REFUSED,
        ) from error
    except OSError as error:
        raise UpstreamUnreachable(
            f"There is no way to {where}: {error.strerror or 'no connection'}.",
            remedy="Check the address and the network.",
        ) from error


def unknown_name(host: str, where: str, error: OSError | None = None) -> UpstreamUnreachable:
    """The error for a host name that cannot be looked up."""
    if isinstance(error, socket.gaierror) and error.errno in _NO_NAME_SERVER:
        message, remedy = f"The name of {where} could not be looked up: no name server answered.", _NETWORK
    elif host in _NOT_TYPED:
        message, remedy = f"The name of {where} could not be looked up.", _NETWORK
    else:
        message = f"The name of {where} does not exist."
        remedy = "Check the spelling of the URL. A deleted Inference Endpoint loses its name."
    return UpstreamUnreachable(message, remedy=remedy, cause=Cause.NAME_NOT_RESOLVED)


def stalled(where: str, seconds: float) -> UpstreamUnreachable:
    """The error for a stream that goes on no more."""
    return UpstreamUnreachable(
        f"{where} began to answer, and then sent nothing for {seconds:g} seconds.",
        remedy="It may be overloaded, or have lost its model: look at its log.",
        cause=Cause.UPSTREAM_TIMEOUT,
    )


def redirected(url: str, where: str, location: str) -> UpstreamUnreachable:
    """The error for a reply that sends its caller elsewhere."""
    try:
        aim = host_of(urljoin(url, location))
    except ValueError:
        aim = "a malformed address"
    return UpstreamUnreachable(
        f"{where} sends callers on to {aim}, and the gate does not follow: the token would go along.",
        remedy="Register that address instead, if it is the model server's.",
        cause=Cause.UPSTREAM_REDIRECTS,
        retryable=False,
    )


def not_let_through(where: str, status: int) -> UpstreamUnreachable:
    """The error for a proxy that opens no way to a server."""
    return UpstreamUnreachable(
        f"The proxy on the way to {where} lets nobody through: it said {status}.",
        remedy="Check the endpoint's [proxy]: its address, and the name and password in it.",
        retryable=status >= 500,
    )


def invalid_url() -> InvalidEndpoint:
    """The error for a URL that no request can be sent to."""
    return InvalidEndpoint(
        "The endpoint's URL cannot be used.", remedy="Copy it again from the endpoint's page."
    )


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message.rstrip('.')})"
    reason = error.reason or "the handshake failed"
    return "it speaks plain HTTP" if reason == "WRONG_VERSION_NUMBER" else reason.replace("_", " ").lower()
