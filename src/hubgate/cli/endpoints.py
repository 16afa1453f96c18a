"""Registering endpoints, and looking after them."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer
from typer import Argument, Option

from hubgate.cli.client import CommandFailed, api, segment
from hubgate.cli.printing import print_endpoint, print_table

Name = Annotated[str, Argument(help="The endpoint's name.")]


def add(
    name: Name,
    url: Annotated[str | None, Option(help="Of an Inference Endpoint, or any such server.")] = None,
    local: Annotated[
        str | None, Option(help="A model's folder or Hub repository, run on this machine.")
    ] = None,
    fake: Annotated[
        bool, Option("--fake", help="Deterministic vectors without a model, to try things out.")
    ] = False,
    token_env: Annotated[
        str | None, Option(help="The environment variable that holds the access token.")
    ] = None,
    ask_token: Annotated[bool, Option("--ask-token", help="Ask for the access token.")] = False,
    engine: Annotated[str | None, Option(help="The server at the URL, if not to be detected.")] = None,
    model: Annotated[str | None, Option(help="What runs at the URL, if the server does not tell.")] = None,
    dimensions: Annotated[int | None, Option(help="The vectors' length.", min=1)] = None,
    requests_per_minute: Annotated[
        int | None, Option(help="The allowance (3000).", min=1, show_default=False)
    ] = None,
    tokens_per_minute: Annotated[
        int | None, Option(help="The allowance in tokens, if there is one.", min=1)
    ] = None,
    max_concurrent_requests: Annotated[
        int | None, Option(help="Requests in flight at once, if that is limited.", min=1)
    ] = None,
    burst: Annotated[
        int | None, Option(help="Requests that may leave together after a pause (1).", min=1)
    ] = None,
    prefix_query: Annotated[
        str | None, Option(help="Goes before each query, instead of what the model is known to want.")
    ] = None,
    prefix_document: Annotated[str | None, Option(help="Goes before each document, likewise.")] = None,
    chunking: Annotated[
        str | None, Option(help="chunking_settings as in Elasticsearch, in JSON.", metavar="JSON")
    ] = None,
    no_cache: Annotated[bool, Option("--no-cache", help="Remember no vectors.")] = False,
) -> None:
    """Register a model. It is called before it is stored, and what it is gets printed."""
    form = {
        "name": name,
        **_where(url, local, model, fake=fake),
        "engine": engine,
        "token": _token(token_env, ask=ask_token),
        "dimensions": dimensions,
        "rate_limit": _given(
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            max_concurrent_requests=max_concurrent_requests,
            burst=burst,
        ),
        "prefixes": _given(search=prefix_query, ingest=prefix_document),
        "chunking_settings": _json("--chunking", chunking),
        "cache": False if no_cache else None,
    }
    print_endpoint(api("POST", "/api/endpoints", _given(**form)))


def list_endpoints() -> None:
    """List the endpoints."""
    print_table(
        ("name", "task", "source", "engine", "dimensions", "model or URL"),
        [
            (
                endpoint["name"],
                endpoint["task"],
                endpoint["source"],
                endpoint["facts"].get("engine"),
                endpoint.get("dimensions"),
                endpoint.get("url") or endpoint.get("model"),
            )
            for endpoint in api("GET", "/api/endpoints")["endpoints"]
        ],
    )


def show(name: Name) -> None:
    """Show an endpoint, and what was learned of it."""
    print_endpoint(api("GET", f"/api/endpoints/{segment(name)}"))


def check(name: Name) -> None:
    """Look whether the registered model still answers. It fails, and says what changed, if another one does."""
    api("POST", f"/api/endpoints/{segment(name)}/check")
    print(f"{name} answers as the model that was registered.")


def accept(name: Name) -> None:
    """Take what runs there now for the registered model. Documents embedded before must be embedded anew."""
    print_endpoint(api("POST", f"/api/endpoints/{segment(name)}/accept"))


def remove(name: Name) -> None:
    """Forget an endpoint and its token."""
    api("DELETE", f"/api/endpoints/{segment(name)}")
    print(f"Removed {name}.")


def _where(url: str | None, local: str | None, model: str | None, *, fake: bool) -> dict[str, str | None]:
    if (url is not None) + (local is not None) + fake != 1:
        raise CommandFailed("Say where the model runs: one of --url, --local or --fake.")
    if local is None:
        return {"source": "fake" if fake else "dedicated", "url": url, "model": model}
    if model is not None:
        raise CommandFailed("--local names the model already. Leave out --model.")
    return {"source": "local", "model": local}


def _given(**options: Any) -> dict[str, Any] | None:
    """The options that were given, or `None` if none was."""
    return {name: value for name, value in options.items() if value is not None} or None


def _token(variable: str | None, *, ask: bool) -> str | None:
    """The token, never from the command line itself: every user of a machine can read that."""
    if variable is not None:
        token = os.environ.get(variable)
        if not token:
            raise CommandFailed(f"The environment variable {variable} is not set.")
        return token
    return typer.prompt("Access token", hide_input=True) if ask else None


def _json(option: str, given: str | None) -> Any:
    try:
        return None if given is None else json.loads(given)
    except ValueError as error:
        raise CommandFailed(f"{option} is not JSON: {error}.") from None
