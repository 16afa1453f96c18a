"""What an endpoint can be told on the command line, for the commands that register one and those that change one."""

from __future__ import annotations

import json
import os
import re
from typing import Annotated, Any

import typer
from typer import Argument, Option

from hubgate.cli.client import CommandFailed
from hubgate.domain import endpoint as domain

Name = Annotated[str, Argument(help="The endpoint's name.")]
Url = Annotated[str | None, Option(help="Of an Inference Endpoint, or any such server.")]
Task = Annotated[
    str | None,
    Option(
        help="What it does: text_embedding (the default), sparse_embedding, rerank, completion, chat_completion."
    ),
]
Model = Annotated[str | None, Option(help="What runs at the URL, if the server does not tell.")]
TokenEnv = Annotated[str | None, Option(help="The environment variable that holds the access token.")]
AskToken = Annotated[bool, Option("--ask-token", help="Ask for the access token.")]
Connection = Annotated[str | None, Option(help="The stored token that it uses, by name.")]
Engine = Annotated[str | None, Option(help="The server at the URL, if not to be detected.")]
Provider = Annotated[str | None, Option(help="Of a hosted model: auto, a provider, or a policy.")]
BillTo = Annotated[str | None, Option(help="The organisation that pays for a hosted model.")]
Namespace = Annotated[str | None, Option(help="Whose Inference Endpoint it is at Hugging Face.")]
Similarity = Annotated[str | None, Option(help="cosine, dot_product or l2_norm.")]
Dimensions = Annotated[int | None, Option(help="The vectors' length.", min=1)]
MaxInputTokens = Annotated[
    int | None, Option(help="What the model reads, if the server does not tell.", min=1)
]
RequestsPerMinute = Annotated[int | None, Option(help="The allowance (3000).", min=1, show_default=False)]
TokensPerMinute = Annotated[int | None, Option(help="The allowance in tokens, if there is one.", min=1)]
MaxConcurrentRequests = Annotated[
    int | None, Option(help="Requests in flight at once, if that is limited.", min=1)
]
Burst = Annotated[int | None, Option(help="Requests that may leave together after a pause (1).", min=1)]
PrefixQuery = Annotated[
    str | None, Option(help="Goes before each query, instead of what the model is known to want.")
]
PrefixDocument = Annotated[str | None, Option(help="Goes before each document, likewise.")]
Chunking = Annotated[
    str | None, Option(help="chunking_settings as in Elasticsearch, in JSON.", metavar="JSON")
]
Proxy = Annotated[str | None, Option(help="An HTTP proxy between the gate and the server.")]
CaBundle = Annotated[str | None, Option(help="A file of certificates to check the server's against.")]
Timeout = Annotated[float | None, Option(help="Seconds that one request may take.", min=0)]
Precision = Annotated[str | None, Option(help="Of a local model: f32, bf16 or auto.")]
Fallback = Annotated[str | None, Option(help="The endpoint that answers when this one cannot.")]


_NOT_A_TOKEN = re.compile(r"your|<|>|…|\.\.\.|xxxx|changeme|placeholder|_token|_here|^[/~$]", re.IGNORECASE)
"""What stands in examples, and at the start of paths; access tokens are random letters and digits."""


def given(**options: Any) -> dict[str, Any] | None:
    """The options that were given, or `None` if none was."""
    return {name: value for name, value in options.items() if value is not None} or None


def task_named(word: str) -> str:
    """A task by Elasticsearch's word for it, or Hugging Face's.

    Raises:
        CommandFailed: it is neither.
    """
    try:
        return domain.Task(word).value
    except ValueError:
        raise CommandFailed(f"--task cannot be {word!r}. It is one of {', '.join(domain.Task)}.") from None


def token(variable: str | None, *, ask: bool) -> str | None:
    """The token, never from the command line itself: every user of a machine can read that.

    A server of one's own takes any token, so one that looks like a placeholder only gets a warning.

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
    if found and any(_NOT_A_TOKEN.search(line) for line in found.split()):
        where = f"the token in {variable}" if variable else "this token"
        typer.echo(f"hubgate: {where} looks like a placeholder or a path; it is used as it is.", err=True)
    return found


def read_json(option: str, text: str | None) -> Any:
    """The value of an option that is JSON.

    Raises:
        CommandFailed: it is not.
    """
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise CommandFailed(f"{option} is not JSON: {error}.") from None
