"""The options of `hubgate job run` and `hubgate job estimate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias

from typer import Argument, Option


class Texts(StrEnum):
    """Input types."""

    DOCUMENT = "document"
    QUERY = "query"
    CLASSIFICATION = "classification"
    CLUSTERING = "clustering"


In: TypeAlias = Annotated[
    str,
    Argument(
        metavar="IN",
        help="A .parquet or .jsonl file, or a folder of .txt and .md files; with --on, also s3://bucket/*.parquet.",
    ),
]
Out: TypeAlias = Annotated[
    str,
    Argument(metavar="OUT", help="The .parquet or .jsonl file to create; with --on, a folder of files."),
]
EndpointName: TypeAlias = Annotated[str, Option(help="The name of an embedding endpoint.")]
TextField: TypeAlias = Annotated[str, Option(help="The field to embed.")]
IdField: TypeAlias = Annotated[
    str | None, Option(help="The field with the row's id; by default, its number.")
]
Chunk: TypeAlias = Annotated[
    bool,
    Option("--chunk", help="Split long texts by the endpoint's chunking settings, or to fit the model."),
]
InputType: TypeAlias = Annotated[Texts, Option(help="What the texts are used for.")]
Cache: TypeAlias = Annotated[bool, Option("--cache", help="Use hubgate's vector cache, and add to it.")]
RowsPerRequest: TypeAlias = Annotated[
    int | None,
    Option(help="Rows per request: 128 for a new job; a continued job keeps its number.", min=1, max=2048),
]
Concurrency: TypeAlias = Annotated[int, Option(help="Concurrent requests.", min=1, max=256)]
Price: TypeAlias = Annotated[float | None, Option(help="Show the cost of the job at this price.", min=0.0)]
Overwrite: TypeAlias = Annotated[bool, Option("--overwrite", help="Start over and replace the output.")]

On: TypeAlias = Annotated[
    str | None,
    Option(
        metavar="RAY",
        help="Run on a Ray cluster: ray://HOST:10001, or `ray` for that of RAY_ADDRESS or of this machine.",
    ),
]
GatewayUrl: TypeAlias = Annotated[
    str | None, Option(metavar="URL", help="With --on: the URL at which the nodes reach hubgate.")
]
Tasks: TypeAlias = Annotated[
    int | None, Option(help="With --on: Ray tasks at once; by default, two per node.", min=1)
]
RowsPerTask: TypeAlias = Annotated[
    int | None,
    Option(
        help="With --on: rows per task and file; 8192 for a new job; a continued job keeps its number.", min=1
    ),
]
LocalOnWorkers: TypeAlias = Annotated[
    bool, Option("--local-on-workers", help="With --on: run the local model in the tasks.")
]


class RayOptions(NamedTuple):
    """The options of `hubgate job run` that are for Ray only."""

    on: str | None = None
    gateway: str | None = None
    """The URL at which the nodes reach hubgate; `None`: that of the gateway of this home."""
    tasks: int | None = None
    rows_per_task: int | None = None
    local: bool = False
    """Whether the nodes run the model themselves."""

    @property
    def has_any(self) -> bool:
        return self != RayOptions()


def place_of(argument: str) -> str:
    """An input or output as it is called from everywhere: a URI, or an absolute path."""
    return argument.rstrip("/") if "://" in argument else str(Path(argument).absolute())
