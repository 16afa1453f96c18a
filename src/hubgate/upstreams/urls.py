"""From the URL that an operator pasted to the base URL of the server."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from yarl import URL

from hubgate.domain.errors import Cause, InvalidEndpoint
from hubgate.domain.token_hosts import origin

_ROUTES = sorted(
    (
        "/v1",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/models",
        "/v1/rerank",
        "/chat/completions",
        "/completions",
        "/embed",
        "/embed_all",
        "/embed_sparse",
        "/embedding",
        "/embeddings",
        "/generate",
        "/generate_stream",
        "/health",
        "/info",
        "/rerank",
        "/tokenize",
    ),
    key=len,
    reverse=True,
)
"""Routes that people paste along with the address; the longest match is removed."""

_PAGES = {
    "huggingface.co": "the Hub's site",
    "www.huggingface.co": "the Hub's site",
    "hf.co": "the Hub's site",
    "endpoints.huggingface.co": "the page for managing endpoints",
    "ui.endpoints.huggingface.co": "the page for managing endpoints",
    "api.endpoints.huggingface.cloud": "the API for managing endpoints",
}
_OLD_HOST = "api-inference.huggingface.co"


def base_url(given: str) -> str:
    """The base URL without a trailing slash; other paths of the operator are kept.

    Raises:
        InvalidEndpoint: not an http(s) URL, or one that cannot be a model server's. The message never repeats a
            part that may contain a secret.
    """
    parts = _split(given)
    if parts.scheme not in {"http", "https"}:
        raise InvalidEndpoint(
            "The URL does not start with http:// or https://.",
            remedy="Enter the whole URL, such as https://….endpoints.huggingface.cloud or http://localhost:8080.",
        )
    if not parts.hostname:
        raise InvalidEndpoint("The URL has no host.", remedy="Enter the whole URL.")
    if "@" in parts.netloc:
        raise InvalidEndpoint(
            "The URL contains a user name or a password.", remedy="Send the token in [api_key] instead."
        )
    if parts.query or parts.fragment:
        raise InvalidEndpoint(
            f"The URL of [{parts.hostname}] has a query or a fragment (? or #).",
            remedy="Remove it; a token belongs in [api_key].",
        )
    _check_not_a_page(parts.hostname, parts.path)
    return f"{parts.scheme}://{parts.netloc}{_without_route(parts.path.rstrip('/'))}"


def host_of(url: str) -> str:
    """Scheme, host and port, for messages; no part that may contain a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def origin_of(url: str) -> str:
    """The origin that the client connects to for a URL: see `hubgate.domain.token_hosts`.

    Raises:
        InvalidEndpoint: it is malformed.
    """
    _split(url)
    parsed = URL(url.strip())
    return origin(parsed.scheme, parsed.raw_host or "", parsed.port)


def _split(given: str) -> SplitResult:
    if not given.isprintable() or " " in given.strip():
        raise InvalidEndpoint("The URL contains spaces or control characters.", remedy="Copy it again.")
    try:
        parts = urlsplit(given.strip())
        URL(given.strip())  # as the HTTP client parses it
        _ = parts.port
    except ValueError as error:
        raise InvalidEndpoint(
            "The URL is malformed: its host or port is not valid.", remedy="Copy it again."
        ) from error
    return parts


def _without_route(path: str) -> str:
    for route in _ROUTES:
        if path.endswith(route):
            return path.removesuffix(route)
    return path


def _check_not_a_page(host: str, path: str) -> None:
    if host == _OLD_HOST:
        model = path.partition("/models/")[2] or path.removeprefix("/pipeline/feature-extraction/")
        named = f"[{model.strip('/')}]" if model.strip("/") else "a hosted model"
        raise InvalidEndpoint(
            f"Hugging Face has shut down [{_OLD_HOST}].",
            remedy=f"Inference Providers serve its models now: register {named} by its name, without a URL. "
            "Or run the model on an Inference Endpoint, or on this machine.",
            cause=Cause.OLD_ADDRESS,
        )
    if host in _PAGES:
        raise InvalidEndpoint(
            f"[{host}] is {_PAGES[host]}, not a model server.",
            remedy="Copy the Endpoint URL from the endpoint's page: https://….endpoints.huggingface.cloud.",
        )
