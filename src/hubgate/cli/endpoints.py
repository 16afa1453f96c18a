"""Commands that register endpoints, change them, and check them."""

from __future__ import annotations

import sys
from inspect import Parameter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from typer import Argument, Option

from hubgate.domain.endpoint_fields import FIELDS
from hubgate.settings import Settings
from hubgate.terminal.client import CommandFailed, NoHome, api, api_list, segment
from hubgate.terminal.options import (
    Name,
    endpoint_options,
    given,
    option,
    parse_json,
    parse_task,
    read_token,
    takes,
)
from hubgate.terminal.printing import (
    plain,
    print_endpoint,
    print_fields,
    print_prefixes,
    print_result,
    print_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NAME = option("name", Name, default=Parameter.empty)
_CAUSES_WITHOUT_A_CALL = frozenset(
    {"", "invalid_request", "invalid_endpoint", "endpoint_exists", "address_refused", "old_address"}
)
"""Why a registration may fail before any server is called."""
_WHERE = (
    option(
        "local",
        Annotated[str | None, Option(help="A model to run on this machine: a folder or a Hub repository.")],
    ),
    option(
        "hosted",
        Annotated[
            str | None,
            Option(help="A Hub repository that an Inference Provider serves.", metavar="REPOSITORY"),
        ],
    ),
    option(
        "fake",
        Annotated[
            bool, Option("--fake", help="Deterministic vectors without a model, for trying things out.")
        ],
        default=False,
    ),
)
_RATE_LIMIT = tuple(field.name for field in FIELDS if field.in_rate_limit)


@takes(
    _NAME,
    *endpoint_options(
        option(
            "no_cache", Annotated[bool, Option("--no-cache", help="Do not cache vectors.")], default=False
        ),
        _WHERE,
    ),
    option(
        "save_anyway",
        Annotated[bool, Option("--save-anyway", help="If its test fails, keep it, disabled.")],
        default=False,
    ),
)
def add(
    name: str,
    *,
    local: str | None,
    hosted: str | None,
    fake: bool,
    no_cache: bool,
    save_anyway: bool,
    **options: Any,
) -> None:
    """Register a model. It is called once before it is stored."""
    where = _where(options["url"] or None, local, hosted, options["model"], fake=fake)
    body = {"name": name, **_form(options), **where}
    if no_cache:
        body["cache"] = False
    if save_anyway:
        body["save_anyway"] = True
    if local:
        _download(local, body.get("token"), task=body.get("task"))
    try:
        print_result("Added", api("POST", "/api/endpoints", body, no_home=NoHome.CREATE))
    except CommandFailed as failure:
        if failure.cause not in _CAUSES_WITHOUT_A_CALL:
            _diagnose(body)
        raise


@takes(
    _NAME,
    *endpoint_options(
        option(
            "cache", Annotated[bool | None, Option("--cache/--no-cache", help="Whether to cache vectors.")]
        )
    ),
    option(
        "unset",
        Annotated[
            list[str] | None,
            Option(
                help="Restore the default of a setting, by its name in docs/api.md; token removes the token."
            ),
        ],
    ),
)
def edit(name: str, *, unset: list[str] | None, **options: Any) -> None:
    """Change settings of an endpoint. The model is called only if the change may affect what it returns."""
    form = _form(options) | {field.replace("-", "_"): None for field in unset or ()}
    if not form:
        raise CommandFailed("No settings given. `hubgate edit --help` lists them.")
    shown = api("PATCH", f"/api/endpoints/{segment(name)}", form)
    print_result("Changed", shown)
    print_fields({field: plain(shown.get(field)) for field in form if field != "token"})


def enable(name: Name) -> None:
    """Switch an endpoint on. One that was never tested is tested first."""
    api("PATCH", f"/api/endpoints/{segment(name)}", {"enabled": True})
    print(f"{name} is enabled.")


def disable(name: Name) -> None:
    """Switch an endpoint off: calls to it are refused, and a local model is unloaded."""
    api("PATCH", f"/api/endpoints/{segment(name)}", {"enabled": False})
    print(f"{name} is disabled.")


def clone(name: Name, new_name: Annotated[str, Argument(help="Name of the clone.")]) -> None:
    """Register an endpoint again under another name, with its token."""
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
                " ".join(endpoint.get("urls", ())) or endpoint.get("url") or endpoint.get("model"),
            )
            for endpoint in api_list("/api/endpoints", "endpoints", "name")
        ],
    )


def show(name: Name) -> None:
    """Show the settings of an endpoint and what was detected."""
    print_endpoint(api("GET", f"/api/endpoints/{segment(name)}"))


def check(name: Name) -> None:
    """Check that the endpoint still serves the registered model. Fails with what changed if it does not."""
    api("POST", f"/api/endpoints/{segment(name)}/check")
    print(f"{name} still serves the registered model.")


def accept(name: Name) -> None:
    """Accept the model running now. Re-embed documents that the previous model embedded."""
    print_result("Accepted", api("POST", f"/api/endpoints/{segment(name)}/accept"))


def doctor(name: Name) -> None:
    """Diagnose the connection to an endpoint's model, step by step: what fails, why, and what to do."""
    diagnosis = api("POST", f"/api/endpoints/{segment(name)}/diagnose")
    _print_steps(diagnosis["steps"])
    for step in diagnosis["steps"]:
        if step["outcome"] == "failed":
            raise CommandFailed(f"{step['message']} {step['remedy']}".rstrip(), step["cause"])
    print(f"{name} is healthy.")


def remove(
    name: Name,
    force: Annotated[bool, Option("--force", help="Remove it even if keys or endpoints use it.")] = False,
) -> None:
    """Remove an endpoint and its token."""
    api("DELETE", f"/api/endpoints/{segment(name)}{'?force=true' if force else ''}")
    print(f"Removed {name}.")


def _form(options: dict[str, Any]) -> dict[str, Any]:
    """The body of a request to `/api/endpoints` from the options of a command."""
    token = read_token(options.pop("token_env"), ask=options.pop("ask_token"))
    task = options.pop("task")
    urls = options.pop("url") or []
    composed = given(
        task=None if task is None else parse_task(task),
        url=urls[0] if len(urls) == 1 else None,
        urls=urls if len(urls) > 1 else None,
        token=token,
        rate_limit=given(**{name: options.pop(name) for name in _RATE_LIMIT}),
        prefixes=given(search=options.pop("prefix_query"), ingest=options.pop("prefix_document")),
        prompt_names=given(search=options.pop("prompt_query"), ingest=options.pop("prompt_document")),
        chunking_settings=parse_json("--chunking", options.pop("chunking")),
    )
    return {**(given(**options) or {}), **(composed or {})}


def _where(
    urls: Sequence[str] | None, local: str | None, hosted: str | None, model: str | None, *, fake: bool
) -> dict[str, str | None]:
    if sum(one is not None for one in (urls, local, hosted)) + fake != 1:
        raise CommandFailed("Specify where the model runs: one of --url, --local, --hosted or --fake.")
    if local is None and hosted is None:
        return {"source": "fake" if fake else "dedicated"}
    if model is not None:
        raise CommandFailed(f"--{'local' if local else 'hosted'} already names the model. Remove --model.")
    return {"source": "local", "model": _absolute(local)} if local else {"source": "router", "model": hosted}


def _absolute(folder_or_repository: str) -> str:
    """A folder's absolute path: the gateway runs in another directory than this command."""
    folder = Path(folder_or_repository)
    return str(folder.absolute()) if folder.is_dir() else folder_or_repository


def _diagnose(form: dict[str, Any]) -> None:
    """Show at which step the connection to a model fails that could not be registered."""
    body = {key: value for key, value in form.items() if key != "save_anyway"}
    _print_steps(api("POST", "/api/diagnose", body)["steps"])


def _print_steps(steps: Sequence[dict[str, Any]]) -> None:
    for replica in dict.fromkeys(step.get("replica") for step in steps):
        if replica:
            print(replica)
        print_table(
            ("step", "outcome", "ms"),
            [
                (step["step"], step["outcome"], step["milliseconds"] or None)
                for step in steps
                if step.get("replica") == replica
            ],
        )
    for step in steps:
        if step["outcome"] == "passed" and "message" in step:
            print(step["message"])
    print_prefixes(next((step for step in steps if "prefix_sources" in step), {}))
    for warning in dict.fromkeys(chain.from_iterable(step.get("warnings", ()) for step in steps)):
        print_fields({"warning": warning})


def _download(model: str, token: str | None, *, task: str | None) -> None:
    """Download a model's files to the cache, with a progress line.

    Only in a terminal: otherwise the gateway downloads them itself, and logs it. A failure is ignored here, because the
    gateway then tries again and reports why it fails.
    """
    if not sys.stderr.isatty():
        return
    import asyncio
    from functools import partial

    from hubgate.domain.endpoint import GENERATION_TASKS, Task
    from hubgate.domain.errors import HubgateError
    from hubgate.domain.secret import Secret
    from hubgate.upstreams.local.facts import check_files
    from hubgate.upstreams.local.files import find_model

    bearer = Secret(token) if token else None
    show = progress(model, sys.stderr)
    try:
        wanted = Task(task or Task.TEXT_EMBEDDING)
        asyncio.run(
            find_model(
                model,
                hf_endpoint=Settings.from_env().hf_endpoint,
                token=bearer,
                on_progress=show,
                generates=wanted in GENERATION_TASKS,
                check=partial(check_files, task=wanted),
            )
        )
    except (HubgateError, ValueError):  # ValueError: an unknown task
        pass
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def progress(model: str, out: TextIO) -> Callable[[int, int], None]:
    """A function that rewrites one line with how many megabytes of a model are downloaded."""
    shown = ""

    def show(done: int, total: int) -> None:
        nonlocal shown
        percent = f" ({100 * done // total} %)" if total else ""
        line = f"Downloading {model}: {done / 1e6:.1f} of {total / 1e6:.1f} MB{percent}"
        if line != shown:
            shown = line
            print(f"\r\x1b[K{line}", end="", file=out, flush=True)

    return show
