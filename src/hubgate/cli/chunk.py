"""`hubgate chunk`: chunk texts exactly as Elasticsearch 9.4 does, or as an endpoint does."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from hubgate.terminal.client import CommandFailed, api, segment


def chunk_command(
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Chunk as this endpoint does; if it has no settings, chunks fit its model's token limit."
        ),
    ] = None,
) -> None:
    r"""Chunk texts exactly as Elasticsearch 9.4 does. Without --endpoint, no gateway is needed.

    Reads JSON lines {"text": …, "settings": …} from standard input; settings is optional and has the format of
    chunking_settings. Writes {"utf16": [[start, end], …], "codepoints": [[start, end], …]} or {"error": …} for each
    line.
    """
    from hubgate.core.chunking import icu_warning
    from hubgate.domain.errors import HubgateError

    if warning := icu_warning():
        typer.echo(f"hubgate: {warning}", err=True)
    failed = False
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            result = _chunk_line(line, endpoint)
        except (CommandFailed, HubgateError, ValueError) as error:
            failed = True
            result = {"error": f"line {number}: {error}"}
        sys.stdout.write(json.dumps(result, separators=(",", ":")) + "\n")
        sys.stdout.flush()
    if failed:
        raise typer.Exit(1)


def _chunk_line(line: bytes, endpoint: str | None) -> dict[str, Any]:
    from hubgate.core.chunking import chunk
    from hubgate.domain.chunking import parse_chunking_settings

    request = _parse(line)
    if not isinstance(request, dict) or not isinstance(request.get("text"), str):
        raise ValueError('not an object with a string "text"')  # noqa: TRY004 - the input is wrong, not the caller
    settings = request.get("settings")
    if not isinstance(settings, dict | None):
        raise ValueError('"settings" is not an object')  # noqa: TRY004
    if endpoint is not None:
        form = {"text": request["text"], **({"chunking_settings": settings} if settings else {})}
        reply: dict[str, Any] = api("POST", f"/api/endpoints/{segment(endpoint)}/chunk", form)
        return reply
    chunks = chunk(request["text"], parse_chunking_settings(settings))
    return {
        "utf16": [[piece.start_utf16, piece.end_utf16] for piece in chunks],
        "codepoints": [[piece.start, piece.end] for piece in chunks],
    }


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)  # the standard library accepts lone surrogates, as Elasticsearch does
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"invalid JSON: {error}") from None
