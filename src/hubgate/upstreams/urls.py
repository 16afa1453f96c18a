"""From the URL that an operator pasted to the base under which the server's routes are."""

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
"""Routes that people paste along with the address; the longest that fits is cut."""

_PAGES = {
    "huggingface.co": "the Hub's site",
    "www.huggingface.co": "the Hub's site",
    "hf.co": "the Hub's site",
    "endpoints.huggingface.co": "the page on which endpoints are managed",
    "ui.endpoints.huggingface.co": "the page on which endpoints are managed",
    "api.endpoints.huggingface.cloud": "the interface by which endpoints are managed",
}
_OLD_HOST = "api-inference.huggingface.co"


def base_url(given: str) -> str:
    """The base URL without a trailing slash; any path of the operator's own is kept.

    Raises:
        InvalidEndpoint: not an http(s) URL, or one that cannot be a model server's. The message never repeats what
            may hold a secret.
    """
    parts = _split(given)
    if parts.scheme not in {"http", "https"}:
        raise InvalidEndpoint(
            "The URL does not begin with http:// or https://.",
            remedy="Give the whole URL, such as https://….endpoints.huggingface.cloud or http://localhost:8080.",
        )
    if not parts.hostname:
        raise InvalidEndpoint("The URL names no host.", remedy="Give the whole URL.")
    if "@" in parts.netloc:
        raise InvalidEndpoint(
            "The URL holds a user name or a password.", remedy="Give the token in [api_key] instead."
        )
    if parts.query or parts.fragment:
        raise InvalidEndpoint(
            f"The URL of [{parts.hostname}] goes on after its path, with ? or #.",
            remedy="Give it without; a token belongs in [api_key].",
        )
    _refuse_known(parts.hostname, parts.path)
    return f"{parts.scheme}://{parts.netloc}{_without_route(parts.path.rstrip('/'))}"


def host_of(url: str) -> str:
    """Scheme, host and port, for messages; nothing of a URL that may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def origin_of(url: str) -> str:
    """The origin that the client connects to for a URL: see `hubgate.domain.token_hosts`.

    Raises:
        InvalidEndpoint: it cannot be read.
    """
    _split(url)
    parsed = URL(url.strip())
    return origin(parsed.scheme, parsed.raw_host or "", parsed.port)


def _split(given: str) -> SplitResult:
    if not given.isprintable() or " " in given.strip():
        raise InvalidEndpoint("The URL holds spaces or control characters.", remedy="Copy it again.")
    try:
        parts = urlsplit(given.strip())
        URL(given.strip())  # the client's own reading of it
        _ = parts.port
    except ValueError as error:
        raise InvalidEndpoint(
            "The URL is malformed: its host or port cannot be read.", remedy="Copy it again."
        ) from error
    return parts


def _without_route(path: str) -> str:
    for route in _ROUTES:
        if path.endswith(route):
            return path.removesuffix(route)
    return path


def _refuse_known(host: str, path: str) -> None:
    if host == _OLD_HOST:
        model = path.partition("/models/")[2] or path.removeprefix("/pipeline/feature-extraction/")
        named = f"[{model.strip('/')}]" if model.strip("/") else "a hosted model"
        raise InvalidEndpoint(
            f"[{_OLD_HOST}] was switched off by Hugging Face.",
            remedy=f"Inference Providers serve its models now: register {named} by its name, without a URL. "
            "Or run the model on an Inference Endpoint, or on this machine.",
            cause=Cause.OLD_ADDRESS,
        )
    if host in _PAGES:
        raise InvalidEndpoint(
            f"[{host}] is {_PAGES[host]}, not a model server.",
            remedy="Copy the Endpoint URL from the endpoint's page: https://….endpoints.huggingface.cloud.",
        )
