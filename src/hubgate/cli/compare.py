"""`hubgate compare`: what changes for a search when another model takes over."""

from __future__ import annotations

import importlib.util
from itertools import islice
from pathlib import Path  # noqa: TC003 - Typer reads the types of the options
from typing import TYPE_CHECKING, Annotated, NamedTuple

from typer import Argument, Option

from hubgate.settings import Settings
from hubgate.terminal.client import CommandFailed, require_home
from hubgate.terminal.printing import print_fields, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from hubgate.service.inference.comparison import Comparison

_TEXTS_PER_REQUEST = 64
_EXAMPLES, _EXAMPLE_TEXTS, _EXAMPLE_CHARACTERS = 3, 3, 70
_PARQUET_OR = "A .parquet or .jsonl file, or a folder of .txt and .md files"


class _Embedded(NamedTuple):
    """What one endpoint made of the texts."""

    model: Mapping[str, Any]
    texts: Sequence[bytes]
    queries: Sequence[bytes]
    tokens: int
    """Of the texts."""
    are_exact: bool

    def cut(self, dimensions: int) -> _Embedded:
        """The first numbers of each vector."""
        size = 4 * dimensions
        if any(len(vector) < size for vector in self.texts):
            raise CommandFailed(f"The vectors have fewer than {dimensions} dimensions.")
        return self._replace(
            model={**self.model, "dimensions": dimensions},
            texts=[vector[:size] for vector in self.texts],
            queries=[vector[:size] for vector in self.queries],
        )


def compare_command(
    old: Annotated[str, Argument(metavar="OLD", help="The current endpoint.")],
    new: Annotated[str, Argument(metavar="NEW", help="The endpoint to compare it with.")],
    texts: Annotated[Path, Option(help=f"{_PARQUET_OR}: the texts as your search indexes them.")],
    queries: Annotated[
        Path | None, Option(help=f"{_PARQUET_OR}. Without it, some of the texts are the queries.")
    ] = None,
    text_field: Annotated[str, Option(help="The field of both files to embed.")] = "text",
    limit: Annotated[int, Option(help="Use at most this number of texts, from the start.", min=2)] = 5000,
    query_limit: Annotated[
        int, Option(help="Use at most this number of queries, from the start.", min=1)
    ] = 500,
    dimensions: Annotated[
        int | None,
        Option(help="Truncate the vectors of NEW to this number of dimensions; NEW can be OLD.", min=1),
    ] = None,
    price_per_million_tokens: Annotated[
        float | None, Option(help="Show the cost of embedding the texts with NEW at this price.", min=0.0)
    ] = None,
) -> None:
    """Compare how two embedding endpoints rank the same texts."""
    if importlib.util.find_spec("numpy") is None:
        raise CommandFailed("Comparing needs numpy, which is not installed. Install hubgate[local].")
    import asyncio

    from hubgate.cli.server.own import ensure_gateway
    from hubgate.service.inference.comparison import Vectors, compare

    settings = Settings.from_env()
    require_home(settings)
    corpus = _read(texts, text_field, limit)
    asked = _read(queries, text_field, query_limit) if queries else []
    if len(corpus) < 2:
        raise CommandFailed(f"{texts} has fewer than two texts.")
    if queries and not asked:
        raise CommandFailed(f"{queries} has no texts.")
    chosen = [] if asked else [*range(0, len(corpus), -(-len(corpus) // query_limit))]
    with ensure_gateway(settings):
        before, now = asyncio.run(_embed_by_both(settings.home, (old, new), corpus, asked))
    if dimensions is not None:
        now = now.cut(dimensions)
    comparison = compare(
        Vectors(before.texts, before.queries, chosen), Vectors(now.texts, now.queries, chosen)
    )
    _print_models([(old, before), (new, now)])
    _print_changes(comparison, now, len(corpus), price_per_million_tokens)
    _print_examples(comparison, corpus, asked or [corpus[position] for position in chosen])


def _read(path: Path, field: str, limit: int) -> list[str]:
    from hubgate.features.bulk.engine.rows import Columns, Row
    from hubgate.features.bulk.formats.formats import open_source

    rows = (row for row in open_source(path, Columns(text=field)).rows() if isinstance(row, Row))
    return [row.text for row in islice(rows, limit)]


async def _embed_by_both(
    home: Path, names: tuple[str, str], texts: Sequence[str], queries: Sequence[str]
) -> Sequence[_Embedded]:
    from asyncio import gather

    return await gather(*(_embed(home, name, texts, queries) for name in names))


async def _embed(home: Path, name: str, texts: Sequence[str], queries: Sequence[str]) -> _Embedded:
    from hubgate.features.bulk.folder import RunOptions, Task
    from hubgate.features.bulk.http import GatewayEmbedder

    vectors: dict[str, list[bytes]] = {"document": [], "query": []}
    tokens, are_exact, model = 0, True, {}
    for kind, some in (("document", texts), ("query", queries)):
        task = Task(input="", output="", endpoint=name, input_type=kind)
        async with GatewayEmbedder(home, task, RunOptions(cached=True)) as embedder:
            model = dict(await embedder.model())
            for first in range(0, len(some), _TEXTS_PER_REQUEST):
                reply = await embedder(some[first : first + _TEXTS_PER_REQUEST])
                vectors[kind] += [piece.vector for piece in reply.pieces]
                if kind == "document":
                    tokens, are_exact = tokens + reply.tokens, are_exact and reply.exact
    return _Embedded(model, vectors["document"], vectors["query"], tokens, are_exact)


def _print_models(sides: Sequence[tuple[str, _Embedded]]) -> None:
    rows = [(name, side.model["model"], side.model["dimensions"], f"{side.tokens:,}") for name, side in sides]
    print_table(("endpoint", "model", "dimensions", "tokens of the texts"), rows)


def _print_changes(comparison: Comparison, now: _Embedded, texts: int, price: float | None) -> None:
    shared = sorted(ranking.shared for ranking in comparison.rankings)
    fields = {
        "texts": f"{texts:,}",
        "queries": f"{len(comparison.rankings):,}",
        f"the same among the first {comparison.neighbours}": (
            f"{comparison.shared():.1f} on average, {shared[len(shared) // 10]} or fewer for a tenth"
        ),
        "first result stays first": f"{comparison.share_of_first_within(1):.0%}",
        "first result stays in 3": f"{comparison.share_of_first_within(3):.0%}",
        f"first result stays in {comparison.neighbours}": (
            f"{comparison.share_of_first_within(comparison.neighbours):.0%}"
        ),
    }
    if comparison.cosines:
        mean = sum(comparison.cosines) / texts
        fields["cosine of the two vectors"] = f"{mean:.4f} on average, {min(comparison.cosines):.4f} at least"
    about = "" if now.are_exact else "about "
    if price is not None:
        fields["cost of embedding the texts"] = f"{about}{now.tokens * price / 1_000_000:,.4f}"
    print()
    print_fields(fields)
    print()
    if comparison.are_same:
        print("Both give the same vectors. Nothing has to be embedded again.")
    else:
        print(
            "The vectors differ. Embed all texts with the new endpoint before queries go to it:"
            f" {about}{now.tokens / texts:,.0f} tokens a text."
        )


def _print_examples(comparison: Comparison, texts: Sequence[str], queries: Sequence[str]) -> None:
    """The queries whose results change most."""
    for ranking in comparison.most_changed(_EXAMPLES):
        print(f"\n{_short(queries[ranking.query])}")
        for name, found in (("old", ranking.old), ("new", ranking.new)):
            for place, position in enumerate(found[:_EXAMPLE_TEXTS], 1):
                print(f"  {name} {place}  {_short(texts[position])}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _EXAMPLE_CHARACTERS else f"{line[:_EXAMPLE_CHARACTERS]}…"
