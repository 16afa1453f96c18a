"""Registering endpoints, changing them, and looking after them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from hubgate.cli import options  # noqa: TC001 - Typer reads the annotations
from hubgate.cli.client import CommandFailed, NoHome, api, segment
from hubgate.cli.doctor import diagnose
from hubgate.cli.fetching import fetch
from hubgate.cli.options import given, read_json, task_named, token
from hubgate.cli.printing import plain, print_endpoint, print_fields, print_result, print_table

_NOT_ABOUT_THE_SERVER = frozenset(
    {"", "invalid_request", "invalid_endpoint", "endpoint_exists", "address_refused", "old_address"}
)
"""Why a registration may fail before any server is asked."""


def add(
    name: options.Name,
    url: options.Url = None,
    local: Annotated[
        str | None, Option(help="A model's folder or Hub repository, run on this machine.")
    ] = None,
    hosted: Annotated[
        str | None, Option(help="A Hub repository that an Inference Provider serves.", metavar="REPOSITORY")
    ] = None,
    fake: Annotated[
        bool, Option("--fake", help="Deterministic vectors without a model, to try things out.")
    ] = False,
    task: options.Task = None,
    token_env: options.TokenEnv = None,
    ask_token: options.AskToken = False,
    connection: options.Connection = None,
    engine: options.Engine = None,
    model: options.Model = None,
    provider: options.Provider = None,
    bill_to: options.BillTo = None,
    namespace: options.Namespace = None,
    similarity: options.Similarity = None,
    dimensions: options.Dimensions = None,
    max_input_tokens: options.MaxInputTokens = None,
    requests_per_minute: options.RequestsPerMinute = None,
    tokens_per_minute: options.TokensPerMinute = None,
    max_concurrent_requests: options.MaxConcurrentRequests = None,
    burst: options.Burst = None,
    prefix_query: options.PrefixQuery = None,
    prefix_document: options.PrefixDocument = None,
    chunking: options.Chunking = None,
    no_cache: Annotated[bool, Option("--no-cache", help="Remember no vectors.")] = False,
    proxy: options.Proxy = None,
    ca_bundle: options.CaBundle = None,
    timeout: options.Timeout = None,
    fallback: options.Fallback = None,
    precision: options.Precision = None,
    save_anyway: Annotated[
        bool, Option("--save-anyway", help="Where it fails its test, keep it, switched off.")
    ] = False,
) -> None:
    """Register a model. It is called once before it is stored."""
    form = given(**locals()) or {}  # an option has the name of its field
    for option in ("local", "hosted", "fake", "no_cache", "save_anyway"):
        form.pop(option, None)
    form |= _where(url, local, hosted, model, fake=fake)
    form |= {"cache": False} if no_cache else {}
    form |= {"save_anyway": True} if save_anyway else {}
    body = _form(form)
    if local:
        fetch(local, body.get("token"))
    try:
        print_result("Added", api("POST", "/api/endpoints", body, no_home=NoHome.MADE))
    except CommandFailed as failure:
        if failure.cause not in _NOT_ABOUT_THE_SERVER:
            diagnose(body)
        raise


def edit(
    name: options.Name,
    url: options.Url = None,
    task: options.Task = None,
    token_env: options.TokenEnv = None,
    ask_token: options.AskToken = False,
    connection: options.Connection = None,
    engine: options.Engine = None,
    model: options.Model = None,
    provider: options.Provider = None,
    bill_to: options.BillTo = None,
    namespace: options.Namespace = None,
    similarity: options.Similarity = None,
    dimensions: options.Dimensions = None,
    max_input_tokens: options.MaxInputTokens = None,
    requests_per_minute: options.RequestsPerMinute = None,
    tokens_per_minute: options.TokensPerMinute = None,
    max_concurrent_requests: options.MaxConcurrentRequests = None,
    burst: options.Burst = None,
    prefix_query: options.PrefixQuery = None,
    prefix_document: options.PrefixDocument = None,
    chunking: options.Chunking = None,
    cache: Annotated[
        bool | None, Option("--cache/--no-cache", help="Whether vectors are remembered.")
    ] = None,
    proxy: options.Proxy = None,
    ca_bundle: options.CaBundle = None,
    timeout: options.Timeout = None,
    fallback: options.Fallback = None,
    precision: options.Precision = None,
    unset: Annotated[
        list[str] | None,
        Option(help="Bring a setting's default back; token forgets it. As in docs/api.md."),
    ] = None,
) -> None:
    """Change settings of an endpoint. It is called only where they may change what it is."""
    changes = given(**locals()) or {}  # as above
    del changes["name"]
    changes.pop("unset", None)
    form = _form(changes) | {field.replace("-", "_"): None for field in unset or ()}
    if not form:
        raise CommandFailed("Say what to change: hubgate edit --help lists the settings.")
    shown = api("PATCH", f"/api/endpoints/{segment(name)}", form)
    print_result("Changed", shown)
    print_fields({field: plain(shown.get(field)) for field in form if field != "token"})


def enable(name: options.Name) -> None:
    """Switch an endpoint on. It is tested first, if it never was."""
    api("PATCH", f"/api/endpoints/{segment(name)}", {"enabled": True})
    print(f"{name} is switched on.")


def disable(name: options.Name) -> None:
    """Switch an endpoint off: calls to it are refused, and a local model is freed."""
    api("PATCH", f"/api/endpoints/{segment(name)}", {"enabled": False})
    print(f"{name} is switched off.")


def clone(name: options.Name, new_name: Annotated[str, Argument(help="Of the clone.")]) -> None:
    """Register an endpoint once more under another name, with its token."""
    print_result("Added", api("POST", f"/api/endpoints/{segment(name)}/clone", {"name": new_name}))


def list_endpoints() -> None:
    """List the endpoints."""
    print_table(
        ("name", "state", "task", "source", "engine", "dimensions", "model or URL"),
        [
            (
                endpoint["name"],
                endpoint["state"],
                endpoint["task"],
                endpoint["source"],
                endpoint["facts"].get("engine"),
                endpoint.get("dimensions"),
                endpoint.get("url") or endpoint.get("model"),
            )
            for endpoint in api("GET", "/api/endpoints")["endpoints"]
        ],
    )


def show(name: options.Name) -> None:
    """Show an endpoint, and what was learned of it."""
    print_endpoint(api("GET", f"/api/endpoints/{segment(name)}"))


def check(name: options.Name) -> None:
    """Look whether the registered model still answers. It fails, and says what changed, if another one does."""
    api("POST", f"/api/endpoints/{segment(name)}/check")
    print(f"{name} still serves the registered model.")


def accept(name: options.Name) -> None:
    """Accept the model that runs there now. Re-embed documents that the previous one embedded."""
    print_result("Accepted", api("POST", f"/api/endpoints/{segment(name)}/accept"))


def remove(
    name: options.Name,
    force: Annotated[bool, Option("--force", help="Even if keys or endpoints use it.")] = False,
) -> None:
    """Forget an endpoint and its token."""
    api("DELETE", f"/api/endpoints/{segment(name)}{'?force=true' if force else ''}")
    print(f"Removed {name}.")


def _form(options_given: dict[str, Any]) -> dict[str, Any]:
    """Options by the names of the form's fields."""
    form = dict(options_given)
    taken = {name: form.pop(name, None) for name in _ELSEWHERE}
    if "task" in form:
        form["task"] = task_named(form["task"])
    return form | (
        given(
            token=token(taken["token_env"], ask=bool(taken["ask_token"])),
            rate_limit=given(**{name: taken[name] for name in _RATE_LIMIT}),
            prefixes=given(search=taken["prefix_query"], ingest=taken["prefix_document"]),
            chunking_settings=read_json("--chunking", taken["chunking"]),
        )
        or {}
    )


_RATE_LIMIT = ("requests_per_minute", "tokens_per_minute", "max_concurrent_requests", "burst")
_ELSEWHERE = (*_RATE_LIMIT, "token_env", "ask_token", "prefix_query", "prefix_document", "chunking")


def _where(
    url: str | None, local: str | None, hosted: str | None, model: str | None, *, fake: bool
) -> dict[str, str | None]:
    if sum(one is not None for one in (url, local, hosted)) + fake != 1:
        raise CommandFailed("Say where the model runs: one of --url, --local, --hosted or --fake.")
    if local is None and hosted is None:
        return {"source": "fake" if fake else "dedicated"}
    if model is not None:
        raise CommandFailed(f"--{'local' if local else 'hosted'} names the model already. Leave out --model.")
    return {"source": "local", "model": _placed(local)} if local else {"source": "router", "model": hosted}


def _placed(folder_or_repository: str) -> str:
    """A folder by its whole path: the gate runs in another directory than this command."""
    folder = Path(folder_or_repository)
    return str(folder.absolute()) if folder.is_dir() else folder_or_repository
