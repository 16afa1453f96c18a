"""`hubgate deploy …`: plan, create and manage Inference Endpoints. See docs/deploying.md."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from typer import Argument, Option

from hubgate.features.deployments.fields import CREATED, EDITED, Field
from hubgate.features.deployments.printing import (
    print_act,
    print_deployment,
    print_deployments,
    print_hardware,
    print_plan,
)
from hubgate.settings import Settings
from hubgate.terminal.client import CommandFailed, api, segment
from hubgate.terminal.commands import Command
from hubgate.terminal.options import given, option, parse_task, takes

app = typer.Typer(help="Create and manage Inference Endpoints at Hugging Face.", no_args_is_help=True)

_WAIT_SECONDS = 5.0
_FINAL = frozenset({"registered", "failed", "unknown"})

Name = Annotated[str, Argument(help="The Inference Endpoint's name.")]
Connection = Annotated[
    str | None, Option(help="The connection to use; needed only if several have a token for Hugging Face.")
]
Namespace = Annotated[str | None, Option(help="A user or an organization; by default the token's owner.")]
ConfirmPrice = Annotated[
    float | None,
    Option(help="Accept a price of at most this many dollars an hour.", metavar="DOLLARS_AN_HOUR", min=0),
]
DryRun = Annotated[bool, Option("--dry-run", help="Only show what the command would do.")]


def _options(fields: Sequence[Field]) -> list[Parameter]:
    """The options of the fields that have a help text."""
    found = []
    for field in fields:
        held = field.setting
        kind: Any = int if field.base_type is int else list[str] if field.is_repeated else str
        if held.help is not None:
            shown = Option(help=held.help, metavar=held.metavar, min=held.least, max=held.most)
            found.append(option(field.option, Annotated[kind | None, shown]))
    return found


_MODEL = option(
    "model",
    Annotated[str, Argument(help="The model on the Hub, as org/name.", metavar="REPO")],
    Parameter.empty,
)
_CREATED = option(
    "name", Annotated[str, Argument(help="The name of the new Inference Endpoint.")], Parameter.empty
)
_WANTED = (
    option("namespace", Namespace),
    option("connection", Connection),
    *_options(CREATED),
)


@app.command("hardware")
def hardware(
    namespace: Namespace = None,
    connection: Connection = None,
    vendor: Annotated[str | None, Option(help="The cloud, such as aws.")] = None,
    region: Annotated[str | None, Option(help="The region, such as us-east-1.")] = None,
    accelerator: Annotated[str | None, Option(help="cpu, gpu or neuron.")] = None,
    max_price: Annotated[
        float | None, Option(help="Maximum price of a replica, in dollars an hour.", min=0)
    ] = None,
) -> None:
    """List what Inference Endpoints can run on, with price and quota, cheapest first."""
    query = given(
        namespace=namespace,
        connection=connection,
        vendor=vendor,
        region=region,
        accelerator=accelerator,
        max_price=max_price,
    )
    print_hardware(api("GET", _path("/hardware", query))["hardware"])


@app.command("plan")
@takes(
    _MODEL,
    *_WANTED,
    option("name", Annotated[str | None, Option(help="The name of the Inference Endpoint.")]),
)
def plan(**options: Any) -> None:
    """Show what an Inference Endpoint for a model would cost, and which hardware fits. Creates nothing."""
    print_plan(api("POST", _path("/plan"), _body(CREATED, options)))


@app.command("create")
@takes(
    _CREATED,
    _MODEL,
    *_WANTED,
    option("confirm_price", ConfirmPrice),
    option(
        "or_delete",
        Annotated[
            bool, Option("--or-delete", help="Delete it if it cannot be registered within 30 minutes.")
        ],
        default=False,
    ),
    option(
        "no_wait",
        Annotated[bool, Option("--no-wait", help="Do not wait until it is registered.")],
        default=False,
    ),
    option("dry_run", DryRun, default=False),
)
def create(
    name: str,
    *,
    confirm_price: float | None,
    or_delete: bool,
    no_wait: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Create an Inference Endpoint, wait until it runs, and register it. Shows the price and asks first."""
    form = _body(CREATED, {"name": name, **options})
    planned = api("POST", _path("/plan"), form)
    if dry_run or confirm_price is None:
        print_plan(planned)
    if dry_run:
        return
    _confirm_price(planned["price"]["at_most"], confirm_price)
    form |= {"confirm": planned["confirm"], "delete_on_failure": or_delete}
    created = api("POST", _path(""), form)
    print(f"Creating {name} in {created['namespace']}, at most ${created['price']['at_most']:g} an hour.")
    if created.get("message"):
        typer.echo(created["message"], err=True)
    if not no_wait:
        _wait(name, created["namespace"], options["connection"])


@app.command("list")
def list_deployments(namespace: Namespace = None, connection: Connection = None) -> None:
    """List the Inference Endpoints of a namespace, with their current and maximum price per hour."""
    print_deployments(api("GET", _path("", given(namespace=namespace, connection=connection))))


@app.command("show")
def show(name: Name, namespace: Namespace = None, connection: Connection = None) -> None:
    """Show an Inference Endpoint: its state, price, progress, and the endpoints that use it."""
    print_deployment(api("GET", _one(name, namespace, connection)))


@app.command("wait")
def wait(name: Name, namespace: Namespace = None, connection: Connection = None) -> None:
    """Wait until an Inference Endpoint is registered; otherwise fail with the reason and the price."""
    _wait(name, namespace, connection)


@app.command("edit")
@takes(
    option("name", Name, Parameter.empty),
    option("namespace", Namespace),
    option("connection", Connection),
    *_options(EDITED),
    option("confirm_price", ConfirmPrice),
    option("dry_run", DryRun, default=False),
)
def edit(
    name: str,
    *,
    namespace: str | None,
    connection: str | None,
    confirm_price: float | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Change an Inference Endpoint. Arguments and variables replace the current ones."""
    _costing("PATCH", name, namespace, connection, _body(EDITED, options), confirm_price, dry_run=dry_run)


@app.command("pause")
def pause(
    name: Name, namespace: Namespace = None, connection: Connection = None, dry_run: DryRun = False
) -> None:
    """Pause an Inference Endpoint: it costs nothing until it is resumed."""
    _stop(name, namespace, connection, "/pause", dry_run=dry_run)


@app.command("resume")
def resume(
    name: Name,
    namespace: Namespace = None,
    connection: Connection = None,
    confirm_price: ConfirmPrice = None,
    dry_run: DryRun = False,
) -> None:
    """Resume a paused Inference Endpoint. Shows the price and asks first."""
    _costing("POST", name, namespace, connection, None, confirm_price, dry_run=dry_run)


@app.command("zero")
def zero(
    name: Name, namespace: Namespace = None, connection: Connection = None, dry_run: DryRun = False
) -> None:
    """Scale an Inference Endpoint to zero: it costs nothing until the next call wakes it."""
    _stop(name, namespace, connection, "/zero", dry_run=dry_run)


@app.command("delete")
def delete(
    name: Name,
    namespace: Namespace = None,
    connection: Connection = None,
    confirm: Annotated[str | None, Option(help="The name again, to delete it without a prompt.")] = None,
    force: Annotated[bool, Option("--force", help="Delete it although endpoints use it.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Delete an Inference Endpoint for good. Asks you to type its name again."""
    planned = api("DELETE", _one(name, namespace, connection, "", {"dry_run": "true"}))
    if dry_run:
        print_act(planned)
        return
    if planned["used_by"] and not force:
        raise CommandFailed(
            f"{name} is used by {', '.join(planned['used_by'])}. Remove those endpoints first, or use --force."
        )
    if confirm is None and sys.stdin.isatty():
        confirm = typer.prompt(f"Deleting cannot be undone. Type {name} to delete it")
    query = {"confirm": confirm or "", **({"force": "true"} if force else {})}
    print_act(api("DELETE", _one(name, namespace, connection, "", query)))


def _stop(name: str, namespace: str | None, connection: str | None, action: str, *, dry_run: bool) -> None:
    """Do what makes an Inference Endpoint cost less, and so needs no price."""
    query = {"dry_run": "true"} if dry_run else None
    print_act(api("POST", _one(name, namespace, connection, action, query)))


def _costing(
    method: str,
    name: str,
    namespace: str | None,
    connection: str | None,
    body: dict[str, Any] | None,
    confirm_price: float | None,
    *,
    dry_run: bool,
) -> None:
    """Resume or change an Inference Endpoint, after its price was confirmed."""
    action = "/resume" if body is None else ""
    planned = api(method, _one(name, namespace, connection, action, {"dry_run": "true"}), body)
    if dry_run:
        print_act(planned)
        return
    before, after = planned["dollars_per_hour"]
    query = {}
    if after is None or before is None or after > before:
        query["confirm_price"] = _confirm_price(after, confirm_price)
    print_act(api(method, _one(name, namespace, connection, action, query), body))


def _confirm_price(at_most: float | None, confirmed: float | None) -> float:
    """The price that the operator confirms, by the option or on the terminal.

    Raises:
        CommandFailed: they do not.
    """
    price = "an unknown amount" if at_most is None else f"at most ${at_most:g}"
    if confirmed is not None:
        if at_most is not None and at_most > confirmed:
            raise CommandFailed(
                f"It would cost {price} an hour, more than --confirm-price {confirmed:g}. Nothing was changed.",
                "price_changed",
            )
        return confirmed
    if not sys.stdin.isatty():
        raise CommandFailed(
            f"It would cost {price} an hour. Confirm that with --confirm-price.", "not_confirmed"
        )
    if not typer.confirm(f"It will cost {price} an hour. Continue?"):
        raise CommandFailed("Nothing was changed.", "not_confirmed")
    return at_most if at_most is not None else 0.0


def _wait(name: str, namespace: str | None, connection: str | None) -> None:
    from hubgate.store.lock import running_gateway

    said = ""
    while True:
        shown = api("GET", _one(name, namespace, connection))
        stage, message = shown.get("stage"), shown.get("message", "")
        if stage is None:
            raise CommandFailed(f"{name} was not created by hubgate. Register it: hubgate add NAME --url URL")
        if said != (said := f"{name}: {stage}. {message}".strip()):
            typer.echo(said, err=True)
        if stage == "registered":
            print(
                f"Registered {shown['register_as']}. `hubgate show {shown['register_as']}` shows its settings."
            )
            return
        if stage in _FINAL:
            raise CommandFailed(f"{name} is not registered. {message}")
        if running_gateway(Settings.from_env().home) is None:
            raise CommandFailed(
                "No gateway is running here, which would register it. Start one: `hubgate serve`."
            )
        time.sleep(_WAIT_SECONDS)


def _body(fields: Sequence[Field], options: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of the options that were given."""
    found = {field.name: options.get(field.option) for field in fields}
    return {
        name: _READ[name](value) if name in _READ else value
        for name, value in found.items()
        if value not in (None, [])
    }


def _variables(pairs: list[str]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    if any(not name or not equals for name, equals, _ in split):
        raise CommandFailed("--env needs NAME=VALUE.")
    return {name: value for name, _, value in split}


def _from_environment(variable: str) -> str:
    if variable not in os.environ:
        raise CommandFailed(f"The environment variable {variable} is not set.")
    return os.environ[variable]


_READ: Mapping[str, Callable[[Any], Any]] = {
    "registry_password": _from_environment,
    "task": lambda name: parse_task(name) if name else None,
    "zero_after": lambda minutes: minutes or None,
    "environment": _variables,
    "secrets": lambda variables: {name: _from_environment(name) for name in variables},
}
"""What an option holds, in JSON; the others hold the same."""


def _path(path: str, query: dict[str, Any] | None = None) -> str:
    return f"/api/deployments{path}" + (f"?{urlencode(query)}" if query else "")


def _one(
    name: str,
    namespace: str | None,
    connection: str | None,
    action: str = "",
    query: dict[str, Any] | None = None,
) -> str:
    asked = {**(given(connection=connection) or {}), **(query or {})}
    return _path(f"/{segment(namespace or '-')}/{segment(name)}{action}", asked)


COMMANDS = (Command(90, "deploy", app),)
