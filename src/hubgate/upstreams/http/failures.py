"""Network errors, and how they are reported: as errors of `domain.errors`."""

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
_BUILT_IN_HOSTS = frozenset({"huggingface.co", "router.huggingface.co", "api.endpoints.huggingface.cloud"})
"""hubgate's own defaults, which nobody can have misspelled."""
_CHECK_NETWORK = "Check the network connection and the DNS settings of hubgate's machine."


class NotHttp(Exception):
    """The reply is not HTTP."""


class Upgraded(Exception):
    """The reply switches to another protocol, which no request asks for."""


class HeadersTooLarge(Exception):
    """The headers of the reply are larger than the limit."""


class TooLarge(Exception):
    """The body of the reply is larger than the limit."""


class DecompressionError(Exception):
    """The body is not compressed as the headers say."""


EXCHANGE_ERRORS = (OSError, NotHttp, Upgraded, HeadersTooLarge, TooLarge, DecompressionError)
"""The errors of an exchange on a connection. A `TimeoutError` is an `OSError`."""


def exchange_error(error: Exception, where: str, timeout: float) -> HubgateError:
    """The error to raise for one of `EXCHANGE_ERRORS`.

    Args:
        error: what happened.
        where: the name of the server: scheme, host and port.
        timeout: in seconds.
    """
    match error:
        case TimeoutError():
            return UpstreamUnreachable(
                f"{where} did not respond within {timeout:g} seconds.",
                remedy="It may be overloaded, or the request is too large. If it needs longer, raise the endpoint's [timeout].",
                cause=Cause.UPSTREAM_TIMEOUT,
            )
        case NotHttp():
            return UpstreamUnreadable(
                f"{where} did not reply in HTTP.",
                remedy="Check the port, and whether the URL must start with https://.",
                cause=Cause.NOT_AN_API,
            )
        case Upgraded():
            return UpstreamUnreadable(
                f"{where} replied with the status 101 and switched to another protocol, which hubgate did not ask for.",
                remedy="Check the URL: it must be that of an HTTP API, not of a WebSocket.",
                cause=Cause.NOT_AN_API,
            )
        case HeadersTooLarge():
            return UpstreamUnreadable(
                f"{where} sent response headers that are too large.",
                remedy="Check the server's configuration.",
            )
        case DecompressionError():
            return UpstreamUnreadable(f"{where} sent a compressed reply that cannot be decompressed.")
        case _:
            return UpstreamUnreachable(
                f"{where} closed the connection before its reply was complete.",
                remedy="The server, or a proxy in front of it, may have crashed or run out of memory: check its log.",
                cause=Cause.CONNECTION_LOST,
            )


def too_large(where: str, bound: int, *, is_setting: bool) -> UpstreamUnreadable:
    """The error for a reply of more than `bound` bytes.

    Args:
        where: the name of the server.
        bound: the limit in bytes.
        is_setting: whether the limit is the operator's, not that of a reply to this request.
    """
    if is_setting:
        return UpstreamUnreadable(
            f"{where} sent a reply of more than {bound} bytes, the limit set by HUBGATE_MAX_REPLY_BYTES.",
            remedy="Request less at once (fewer texts, choices or log probabilities), or raise the limit.",
        )
    return UpstreamUnreadable(
        f"{where} sent a reply of more than {bound} bytes, far more than this request needs.",
        remedy="Check that the endpoint's URL and engine are those of the registered model.",
    )


@asynccontextmanager
async def report_connect_errors(where: str, seconds: float) -> AsyncIterator[None]:
    """Report why a connection fails, with or without TLS.

    Raises:
        UpstreamUnreachable: for any OSError, or after `seconds`.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UpstreamUnreachable(
            f"Timed out connecting to {where}.",
            remedy="Check the address and the port, and whether a firewall blocks them.",
            cause=Cause.UPSTREAM_TIMEOUT,
        ) from error
    except ssl.SSLError as error:
        raise UpstreamUnreachable(
            f"TLS to {where} failed: {_tls_reason(error)}.",
            remedy="Use the host name in the certificate, make hubgate's system trust its issuer, or use http:// if the "
            "server has no TLS.",
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
            f"Cannot connect to {where}: {error.strerror or 'no connection'}.",
            remedy="Check the address and the network.",
        ) from error


def unknown_name(host: str, where: str, error: OSError | None = None) -> UpstreamUnreachable:
    """The error for a host name that cannot be resolved."""
    if isinstance(error, socket.gaierror) and error.errno in _NO_NAME_SERVER:
        message, remedy = (
            f"The host name of {where} could not be resolved: no DNS server responded.",
            _CHECK_NETWORK,
        )
    elif host in _BUILT_IN_HOSTS:
        message, remedy = f"The host name of {where} could not be resolved.", _CHECK_NETWORK
    else:
        message = f"The host name of {where} does not exist."
        remedy = "Check the URL for typos. The host name of a deleted Inference Endpoint no longer exists."
    return UpstreamUnreachable(message, remedy=remedy, cause=Cause.NAME_NOT_RESOLVED)


def stalled(where: str, seconds: float) -> UpstreamUnreachable:
    """The error for a stream that has stalled."""
    return UpstreamUnreachable(
        f"{where} started to reply, then sent nothing for {seconds:g} seconds.",
        remedy="It may be overloaded, or have lost its model: check its log. "
        "If it needs longer between two events, raise the endpoint's [timeout].",
        cause=Cause.UPSTREAM_TIMEOUT,
    )


def redirected(url: str, where: str, location: str) -> UpstreamUnreachable:
    """The error for a redirect."""
    try:
        target = host_of(urljoin(url, location))
    except ValueError:
        target = "a malformed address"
    return UpstreamUnreachable(
        f"{where} redirects to {target}. hubgate does not follow redirects, because that would send the token there.",
        remedy="Register that address instead, if it is the model server's.",
        cause=Cause.UPSTREAM_REDIRECTS,
        retryable=False,
    )


def tunnel_refused(where: str, status: int) -> UpstreamUnreachable:
    """The error for a proxy that does not open a tunnel."""
    return UpstreamUnreachable(
        f"The proxy refused the tunnel to {where} ({status}).",
        remedy="Check the endpoint's [proxy]: its address, user name and password.",
        retryable=status >= 500,
    )


def invalid_url() -> InvalidEndpoint:
    """The error for a malformed URL."""
    return InvalidEndpoint(
        "The endpoint's URL is not valid.", remedy="Copy it again from the endpoint's page."
    )


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was rejected ({error.verify_message.rstrip('.')})"
    reason = error.reason or "the handshake failed"
    return (
        "the server uses plain HTTP" if reason == "WRONG_VERSION_NUMBER" else reason.replace("_", " ").lower()
    )
