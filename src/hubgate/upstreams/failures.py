"""Why no reply came: the HTTP client's exceptions in the words of `domain.errors`."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError

from hubgate.domain.errors import (
    Cause,
    HubgateError,
    InvalidEndpoint,
    UpstreamUnreachable,
    UpstreamUnreadable,
)


def failure(error: Exception, where: str, timeout: float) -> HubgateError:
    """The error to raise for what went wrong while asking `where` (scheme, host and port)."""
    if isinstance(error, asyncio.TimeoutError):
        return _timed_out(error, where, timeout)
    if isinstance(error, aiohttp.ClientConnectorError):
        proxied = isinstance(error, aiohttp.ClientProxyConnectionError)
        return _not_connected(error, f"the proxy {error.host}:{error.port}" if proxied else where)
    if isinstance(error, ValueError):  # of the URL; aiohttp's InvalidURL is one
        return InvalidEndpoint(
            "The endpoint's URL cannot be used.", remedy="Copy it again from the endpoint's page."
        )
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return UpstreamUnreachable(
            f"The proxy on the way to {where} lets nobody through: it said {error.status}.",
            remedy="Check the endpoint's [proxy]: its address, and the name and password in it.",
            retryable=error.status >= 500,
        )
    if isinstance(error, aiohttp.ClientResponseError):
        return not_http(where)
    if isinstance(error, aiohttp.ClientPayloadError) and isinstance(error.__cause__, ContentEncodingError):
        return unpackable(where)
    return UpstreamUnreachable(
        f"{where} closed the connection before its reply was complete.",
        remedy="It, or a proxy before it, may have crashed or run out of memory: look at its log.",
        cause=Cause.CONNECTION_LOST,
    )


def not_http(where: str) -> UpstreamUnreadable:
    """The error for a reply that is no HTTP."""
    return UpstreamUnreadable(
        f"{where} does not speak HTTP as a web server does.",
        remedy="Check the port, and whether it must be https://.",
        cause=Cause.NOT_AN_API,
    )


def unpackable(where: str) -> UpstreamUnreadable:
    """The error for a reply that is not compressed as it says."""
    return UpstreamUnreadable(f"{where} sent a compressed reply that cannot be unpacked.")


def too_large(where: str, bound: int) -> UpstreamUnreadable:
    """The error for a reply beyond the bound, in bytes."""
    return UpstreamUnreadable(
        f"The reply of {where} is larger than {bound} bytes.", remedy="Send fewer texts in one call."
    )


def stalled(where: str, seconds: float) -> UpstreamUnreachable:
    """The error for a stream that goes on no more."""
    return UpstreamUnreachable(
        f"{where} began to answer, and then sent nothing for {seconds:g} seconds.",
        remedy="It may be overloaded, or have lost its model: look at its log.",
        cause=Cause.UPSTREAM_TIMEOUT,
    )


def invalid_url() -> InvalidEndpoint:
    """The error for a URL that no request can be sent to."""
    return InvalidEndpoint(
        "The endpoint's URL cannot be used.", remedy="Copy it again from the endpoint's page."
    )


def _timed_out(error: Exception, where: str, timeout: float) -> UpstreamUnreachable:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamUnreachable(
            f"No connection to {where} came about in time.",
            remedy="Check the address and the port, and whether a firewall stands between.",
            cause=Cause.UPSTREAM_TIMEOUT,
        )
    return UpstreamUnreachable(
        f"{where} did not answer within {timeout:g} seconds.",
        remedy="It may be overloaded, or the texts too many for one request.",
        cause=Cause.UPSTREAM_TIMEOUT,
    )


def _not_connected(error: aiohttp.ClientConnectorError, where: str) -> UpstreamUnreachable:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return UpstreamUnreachable(
            f"The name of {where} is not known to the name server.",
            remedy="Check the spelling; an endpoint that was deleted loses its name.",
            cause=Cause.NAME_NOT_RESOLVED,
        )
    if isinstance(error, aiohttp.ClientSSLError):
        return UpstreamUnreachable(
            f"No TLS connection to {where}: {_tls_reason(error)}.",
            remedy="Use the name that the certificate is for, let the gate's system trust its issuer, or use http:// "
            "where the server has no TLS.",
            cause=Cause.TLS_FAILED,
            retryable=False,
        )
    if isinstance(error.os_error, ConnectionRefusedError):
        return UpstreamUnreachable(
            f"Nothing listens at {where}.",
            remedy="Start the server, or check the port.",
            cause=Cause.CONNECTION_REFUSED,
        )
    return UpstreamUnreachable(
        f"There is no way to {where}: {error.os_error.strerror or 'no connection'}.",
        remedy="Check the address and the network.",
    )


def _tls_reason(error: aiohttp.ClientSSLError) -> str:
    inner = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({inner.verify_message.rstrip('.')})"
    reason = (
        getattr(error.os_error, "reason", None) or getattr(error, "reason", None) or "the handshake failed"
    )
    return (
        "it speaks plain HTTP" if reason == "WRONG_VERSION_NUMBER" else str(reason).replace("_", " ").lower()
    )
