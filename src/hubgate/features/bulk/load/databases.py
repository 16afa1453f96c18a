"""The databases that `--to` knows, by the scheme of the URL."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import NamedTuple, cast

from hubgate.features.bulk.formats.inputs import unusable_input
from hubgate.features.bulk.load.targets import Target


class _Database(NamedTuple):
    module: str
    """Of this folder; it imports the client."""
    opener: str
    extra: str
    scheme: str
    """What the client wants in place of ours."""
    has_users: bool = True
    """Its client sends the user name and the password of the URL."""


_DATABASES = {
    "pgvector": _Database("pgvector", "PgvectorTarget", "pgvector", "postgresql"),
    "elasticsearch": _Database("elastic", "ElasticTarget", "elasticsearch", "http"),
    "elasticsearch+https": _Database("elastic", "ElasticTarget", "elasticsearch", "https"),
    "qdrant": _Database("qdrant", "QdrantTarget", "qdrant", "http", has_users=False),
    "qdrant+https": _Database("qdrant", "QdrantTarget", "qdrant", "https", has_users=False),
}
SCHEMES = tuple(_DATABASES)
_PASSWORD = re.compile(r"password=[^&]*")


def open_target(url: str, table: str, key: str | None) -> Target:
    """Open a table of a database.

    Args:
        url: see docs/jobs.md.
        table: its name.
        key: an API key, a token or a password, if the URL has none.

    Raises:
        JobStopped: the scheme is unknown, the URL has credentials that are not sent, or the client is not installed.
    """
    scheme, separator, rest = url.partition("://")
    database = _DATABASES.get(scheme)
    if database is None or not separator or not rest:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise unusable_input("--to is not the URL of a known database.", f"It starts with one of {known}.")
    if not database.has_users and "@" in rest.partition("/")[0]:
        raise unusable_input(
            f"A URL of {scheme}:// has no user name and no password: the client would not send them.",
            "Set HUBGATE_LOAD_KEY to an API key.",
        )
    try:
        module = importlib.import_module(f"hubgate.features.bulk.load.{database.module}")
    except ModuleNotFoundError as error:
        raise unusable_input(
            f"{scheme}:// needs {error.name}, which is not installed.",
            f"Install hubgate[bulk,{database.extra}].",
        ) from None
    opener = cast("Callable[..., Target]", getattr(module, database.opener))
    return opener(f"{database.scheme}://{rest}", table, key)


def table_name(url: str, table: str) -> str:
    """A name for the table that contains no password."""
    scheme, _, rest = url.partition("://")
    address = _PASSWORD.sub("", rest.rpartition("@")[2])
    return f"{scheme}://{address}#{table}"
