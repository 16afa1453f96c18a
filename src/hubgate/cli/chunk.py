"""`hubgate chunk`: cut texts exactly as Elasticsearch 9.4 does, or as an endpoint does."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from hubgate.cli.client import CommandFailed, api, segment


def chunk_command(
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Cut as this endpoint does: without settings of its own, so that its model reads all."
        ),
    ] = None,
) -> None:
    r"""Cut texts into chunks exactly as Elasticsearch 9.4 does; without --endpoint no gateway has to run.

    Reads JSON lines {"text": …, "settings": …} on standard input; settings as in chunking_settings, left out for the
    default. Writes for each line {"utf16": [[start, end], …], "codepoints": [[start, end], …]}, or {"error": …} in
    its place.
    """
    from hubgate.core.chunking import icu_warning
    from hubgate.domain.errors import HubgateError

    if warning := icu_warning():
        typer.echo(f"hubgate: {warning}", err=True)
    failed = False
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            answer = _chunked(line, endpoint)
        except (CommandFailed, HubgateError, ValueError) as error:
            failed = True
            answer = {"error": f"line {number}: {error}"}
        sys.stdout.write(json.dumps(answer, separators=(",", ":")) + "\n")
        sys.stdout.flush()
    if failed:
        raise typer.Exit(1)


def _chunked(line: bytes, endpoint: str | None) -> dict[str, Any]:
    from hubgate.core.chunking import chunk
    from hubgate.domain.chunking import parse_chunking_settings

    asked = _parsed(line)
    if not isinstance(asked, dict) or not isinstance(asked.get("text"), str):
        raise ValueError('not an object with a string "text"')  # noqa: TRY004 - what was read is wrong, not the caller
    settings = asked.get("settings")
    if not isinstance(settings, dict | None):
        raise ValueError('"settings" is not an object')  # noqa: TRY004
    if endpoint is not None:
        form = {"text": asked["text"], **({"chunking_settings": settings} if settings else {})}
        answer: dict[str, Any] = api("POST", f"/api/endpoints/{segment(endpoint)}/chunk", form)
        return answer
    chunks = chunk(asked["text"], parse_chunking_settings(settings))
    return {
        "utf16": [[piece.start_utf16, piece.end_utf16] for piece in chunks],
        "codepoints": [[piece.start, piece.end] for piece in chunks],
    }


def _parsed(line: bytes) -> Any:
    """One line of JSON. The standard library's reader takes lone surrogates, as Elasticsearch does."""
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
