"""Options shared by several commands; those of `hubgate add` and `hubgate edit` come from the table of endpoint fields."""

from __future__ import annotations

import json
import os
import re
from inspect import Parameter, Signature
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from hubgate.domain.endpoint import Task
from hubgate.domain.endpoint_fields import FIELDS, EndpointField
from hubgate.terminal.client import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Name = Annotated[str, Argument(help="The endpoint's name.")]
TokenEnv = Annotated[str | None, Option(help="Environment variable that holds the access token.")]
AskToken = Annotated[bool, Option("--ask-token", help="Prompt for the access token.")]

_PLACEHOLDER = re.compile(r"your|<|>|…|\.\.\.|xxxx|changeme|placeholder|_token|_here|^[/~$]", re.IGNORECASE)
"""Appears in examples, or starts a path; access tokens are random letters and digits."""


def option(name: str, annotation: Any, default: object = None) -> Parameter:
    """A parameter of a command whose signature is built by `takes`."""
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_PREFIXES = [
    option(
        f"prefix_{text}",
        Annotated[
            str | None, Option(help=f"Prepended to each {text}, instead of the prefix known for the model.")
        ],
    )
    for text in ("query", "document")
] + [
    option(
        f"prompt_{text}",
        Annotated[str | None, Option(help=f"Name of the model's prompt for each {text}, if it has several.")],
    )
    for text in ("query", "document")
]
"""The options of `prefixes` and `prompt_names`."""


def endpoint_options(cache: Parameter, where: Sequence[Parameter] = ()) -> list[Parameter]:
    """The options that set the fields of an endpoint.

    Args:
        cache: the option for `cache`.
        where: further options that say where the model runs; they follow `--url`.
    """
    by_field = {field.name: [_of_field(field)] for field in FIELDS if field.help}
    by_field["cache"] = [cache]
    by_field["chunking_settings"] = [*_PREFIXES, *by_field["chunking_settings"]]
    first = [
        *by_field.pop("url"),
        *where,
        *by_field.pop("task"),
        option("token_env", TokenEnv),
        option("ask_token", AskToken, default=False),
        *chain.from_iterable(by_field.pop(name) for name in ("connection", "engine", "model")),
    ]
    return [*first, *chain.from_iterable(by_field.values())]


def _of_field(field: EndpointField) -> Parameter:
    if field.name == "url":
        return option(field.name, Annotated[list[str] | None, Option(help=field.help)])
    if field.name == "chunking_settings":
        return option("chunking", Annotated[str | None, Option(help=field.help, metavar="JSON")])
    if field.base_type is int:
        return option(field.name, Annotated[int | None, Option(help=field.help, min=1)])
    if field.base_type is float:
        return option(field.name, Annotated[float | None, Option(help=field.help, min=0)])
    return option(field.name, Annotated[str | None, Option(help=field.help)])


def takes(*parameters: Parameter) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these parameters, which it receives by name."""

    def with_signature(command: Callable[..., None]) -> Callable[..., None]:
        command.__signature__ = Signature(list(parameters))  # type: ignore[attr-defined]
        return command

    return with_signature


def given(**options: Any) -> dict[str, Any] | None:
    """The options that were given, or `None` if none was."""
    return {name: value for name, value in options.items() if value is not None} or None


def parse_task(name: str) -> str:
    """Elasticsearch's name of a task, from that or from Hugging Face's.

    Raises:
        CommandFailed: no task has this name.
    """
    try:
        return Task(name).value
    except ValueError:
        raise CommandFailed(f"Invalid --task {name!r}. It must be one of {', '.join(Task)}.") from None


def read_token(variable: str | None, *, ask: bool) -> str | None:
    """The token, never from the command line itself: every user of a machine can read that.

    A self-hosted server accepts any token, so one that looks like a placeholder only gets a warning.

    Raises:
        CommandFailed: the variable is not set.
    """
    found: str | None = None
    if variable is not None:
        found = os.environ.get(variable)
        if not found:
            raise CommandFailed(f"The environment variable {variable} is not set.")
    elif ask:
        found = typer.prompt("Access token", hide_input=True)
    if found and any(_PLACEHOLDER.search(line) for line in found.split()):
        where = f"the token in {variable}" if variable else "this token"
        typer.echo(f"hubgate: {where} looks like a placeholder or a path; using it anyway.", err=True)
    return found


def parse_json(name: str, text: str | None) -> Any:
    """The value of an option that is JSON.

    Raises:
        CommandFailed: it is not.
    """
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise CommandFailed(f"{name} is not valid JSON: {error}.") from None
