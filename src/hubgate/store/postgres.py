"""What is specific to PostgreSQL: the connection, the locks of gateways that share it, and its errors in plain words."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from hubgate.domain.errors import StoreFailed
from hubgate.settings import InvalidSetting
from hubgate.store.backend import PATIENCE, Lock

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError as missing:
    raise StoreFailed(
        "A PostgreSQL database needs psycopg, which is not installed.",
        remedy='Run: pip install "hubgate[scale]"',
    ) from missing

from hubgate.store.cluster.postgres_link import PostgresLink

_CONNECT: dict[str, Any] = {
    "application_name": "hubgate",
    "connect_timeout": 5,
    # A server that is gone without a word is noticed in half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Parameters of the connection that the URL does not set."""
_STATEMENT_SECONDS = 30
_ANSWER_SECONDS = _STATEMENT_SECONDS + 5
"""A server that has not answered a statement by then is frozen: it would have cancelled it."""
_REST_SECONDS = 5.0
"""After a server has not answered to a new connection, others fail at once: one thread runs all transactions."""
_MIGRATION_SECONDS = 120
"""How long a gateway waits while another one migrates."""
_LOCKS = 0x68756267
"""Advisory locks have two numbers; this is the first of all of hubgate's."""
_CHANNEL = "hubgate"

_COLLISIONS = {"40001", "40P01"}
_REACH = "Check that PostgreSQL is running and that HUBGATE_DATABASE_URL is right."
_CREDENTIALS = (
    "rejects the user or the password",
    "Correct HUBGATE_DATABASE_URL, or PGPASSWORD if the URL has no password.",
    False,
)
_MISSING = ("does not exist", "Create it with `createdb`, or correct HUBGATE_DATABASE_URL.", False)
_RESTARTING = ("is starting or stopping", "Try again in a moment.", True)
_FULL_OF_CLIENTS = (
    "has no connection left",
    "Raise max_connections of the server, or close other clients. A gateway uses at most six.",
    True,
)
# The problem, the remedy, and whether a retry may help: by SQLSTATE, or by its first two characters.
_ERRORS: dict[str, tuple[str, str, bool]] = {
    "08": ("cannot be reached", _REACH, True),
    "25006": (
        "is read-only",
        "Point HUBGATE_DATABASE_URL to the primary server; with several hosts in it, add target_session_attrs=read-write.",
        False,
    ),
    "28": _CREDENTIALS,
    "3D000": _MISSING,
    "40": ("had too many colliding changes at once", "Try again.", True),
    "42501": (
        "refuses this to hubgate's user",
        "Make the user of HUBGATE_DATABASE_URL the owner of the database.",
        False,
    ),
    "53100": (
        "cannot grow because its disk is full",
        "Free some space on the disk of the PostgreSQL server, then try again.",
        False,
    ),
    "53300": _FULL_OF_CLIENTS,
    "53": ("is out of resources", "Check the memory and the log of the PostgreSQL server.", True),
    "55P03": ("is locked by another program", "Try again, or close the program that holds the lock.", True),
    "57014": (
        "did not respond in time",
        "Try again. If it happens often, check the load of the server.",
        True,
    ),
    "57": _RESTARTING,
    "58": (
        "failed to read or write its files",
        "Check the disk and the log of the PostgreSQL server.",
        False,
    ),
    "XX": ("is damaged or failed internally", "Check the log of the PostgreSQL server.", False),
}
# A connection that is refused has no SQLSTATE, only a text. Servers may translate it; then the last line applies.
_REFUSALS: tuple[tuple[tuple[str, ...], tuple[str, str, bool]], ...] = (
    (("password authentication failed", "no password supplied", 'FATAL:  role "'), _CREDENTIALS),
    (('FATAL:  database "',), _MISSING),
    (("starting up", "shutting down", "recovery mode", "not yet accepting"), _RESTARTING),
    (("too many clients", "connection slots", "too many connections"), _FULL_OF_CLIENTS),
    (
        ("no pg_hba.conf entry", "pg_hba.conf rejects"),
        (
            "does not let hubgate's user connect from this machine",
            "Allow it in the server's pg_hba.conf. If the server requires TLS, add sslmode=require to HUBGATE_DATABASE_URL.",
            False,
        ),
    ),
    (
        ("SSL", "certificate", "TLS"),
        ("cannot be reached over TLS", "Check sslmode and sslrootcert in HUBGATE_DATABASE_URL.", False),
    ),
    (
        ("failed to resolve host", "could not translate host name"),
        ("cannot be reached because its host name is not found", _REACH, True),
    ),
    ((), ("cannot be reached", _REACH, True)),
)

_T = TypeVar("_T")


class _NoAnswer(psycopg.OperationalError):
    """A server did not answer in time."""


class BoundedConnection(psycopg.Connection[Any]):
    """Breaks if the server does not answer in time. TCP does not notice that: the kernel of a frozen server replies."""

    answer_seconds: float = _ANSWER_SECONDS

    def wait(self, gen: Generator[Any, Any, _T], *arguments: Any, **options: Any) -> _T:
        return super().wait(self._bounded(gen), *arguments, **options)

    def _bounded(self, gen: Generator[Any, Any, _T]) -> Generator[Any, Any, _T]:
        end = time.monotonic() + self.answer_seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > end:
                    self.close()
                    raise _NoAnswer("no answer")
                wanted = gen.send(ready)
        except StopIteration as ended:
            return cast("_T", ended.value)


class PostgresDatabase:
    """`hubgate.store.backend.Backend` for a database of a PostgreSQL server, which several gateways may share.

    The URL goes to libpq as it is, so all that libpq knows works: several hosts, TLS, sockets, password files. A
    connection pooler may stand between: settings and locks last for one transaction, and no statement is prepared.
    """

    is_shared = True

    def __init__(self, url: str, patience: float) -> None:
        """Raises: InvalidSetting: the URL is invalid."""
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise InvalidSetting(
                "The URL of the database is invalid. It must look like postgresql://user:password@host:5432/database; "
                "special characters in the password must be percent-encoded."
            ) from None
        self._url = url
        self._options: dict[str, Any] = {
            "prepare_threshold": None,
            **{name: value for name, value in _CONNECT.items() if name not in given},
        }
        self._name = _name(given)
        self._rests_until = 0.0
        self.engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            hide_parameters=True,
            pool_pre_ping=True,  # after a restart of the server, the next transaction reconnects
            pool_size=3,  # one for transactions, and one for each lock that is held over several
            max_overflow=0,
            use_native_hstore=False,
        )
        limits = {
            "statement_timeout": f"{_STATEMENT_SECONDS}s",
            "lock_timeout": f"{max(1, round(patience * 1000))}ms",
        }

        @event.listens_for(self.engine, "begin")
        def _(connection: Connection) -> None:
            _bounded(connection).answer_seconds = _ANSWER_SECONDS
            _set_locally(connection, **limits)

    def check(self) -> None:
        """Nothing can be wrong before a transaction begins."""

    def check_new(self) -> None:
        """An empty database is a new one."""

    def opened(self) -> None:
        """Nothing to do."""

    def lock(self, connection: Connection, lock: Lock, *, wait: bool) -> bool:
        values = {"locks": _LOCKS, "lock": lock.value}
        if wait:
            if lock is Lock.MIGRATION:
                _bounded(connection).answer_seconds = math.inf
                _set_locally(connection, statement_timeout="0", lock_timeout=f"{_MIGRATION_SECONDS}s")
            connection.execute(text("SELECT pg_advisory_xact_lock(:locks, :lock)"), values)
            return True
        # It may be held while another connection works.
        _set_locally(connection, idle_in_transaction_session_timeout="0")
        return bool(
            connection.execute(text("SELECT pg_try_advisory_xact_lock(:locks, :lock)"), values).scalar()
        )

    def publish(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": _CHANNEL})

    def link(self, on_publish: Callable[[], None]) -> PostgresLink:
        """See `hubgate.store.backend.Backend`. Behind a pooler in transaction mode it hears nothing."""
        return PostgresLink(self, PATIENCE, channel=_CHANNEL, on_notify=on_publish)

    def failure(self, error: SQLAlchemyError) -> StoreFailed:
        return self.explain(getattr(error, "orig", None) or error)

    def explain(self, cause: BaseException) -> StoreFailed:
        """An error of psycopg, or a timeout, in plain words."""
        problem, remedy, retryable = _explain(cause) or (
            f"failed ({_primary(cause) or type(cause).__name__})",
            "If another program changed it, restore it from a backup.",
            False,
        )
        return StoreFailed(
            f"The PostgreSQL database {self._name} {problem}.", remedy=remedy, retryable=retryable
        )

    @property
    def name(self) -> str:
        """The database and its host, for messages."""
        return self._name

    def is_collision(self, error: SQLAlchemyError) -> bool:
        """Whether it was a deadlock or a serialization failure."""
        return getattr(getattr(error, "orig", None), "sqlstate", None) in _COLLISIONS

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """A connection beside those of the engine, on which each statement is a transaction.

        Raises:
            psycopg.Error: it cannot be made.
        """
        return await psycopg.AsyncConnection.connect(self._url, autocommit=True, **self._options)

    def _connect(self) -> psycopg.Connection[Any]:
        if time.monotonic() < self._rests_until:
            raise _NoAnswer("no answer")
        try:
            return BoundedConnection.connect(self._url, **self._options)
        except psycopg.errors.ConnectionTimeout:
            self._rests_until = time.monotonic() + _REST_SECONDS
            raise


def _name(given: dict[str, Any]) -> str:
    """The database and its host, for error messages."""
    name = given.get("dbname") or given.get("user") or ""
    host = given.get("host") or given.get("hostaddr")
    port = f":{given['port']}" if given.get("port") and not str(host).startswith("/") else ""
    return f"{name} at {host}{port}".strip() if host else str(name)


def _bounded(connection: Connection) -> BoundedConnection:
    return cast("BoundedConnection", connection.connection.driver_connection)


def _set_locally(connection: Connection, **settings: str) -> None:
    """Set parameters until the end of the transaction."""
    calls = ", ".join(f"set_config('{name}', :{name}, true)" for name in settings)
    connection.execute(text(f"SELECT {calls}"), settings)


def _explain(error: BaseException | None) -> tuple[str, str, bool] | None:
    if isinstance(error, TimeoutError | _NoAnswer):
        return _ERRORS["57014"]
    if not isinstance(error, psycopg.Error):
        return None
    state = error.sqlstate
    if state is not None:
        return _ERRORS.get(state) or _ERRORS.get(state[:2])
    if not isinstance(error, psycopg.OperationalError):
        return None
    message = str(error)
    return next(words for markers, words in _REFUSALS if not markers or any(m in message for m in markers))


def _primary(error: BaseException | None) -> str | None:
    """The server's own message, without the detail, which has values of rows."""
    return error.diag.message_primary if isinstance(error, psycopg.Error) else None
