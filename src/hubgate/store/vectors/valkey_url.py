"""The URL of a Valkey or Redis server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import (
    Connection,
    ConnectionPool,
    Redis,
    Sentinel,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff

from hubgate.settings import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from urllib.parse import SplitResult

_PORT = 6379
_SENTINEL_PORT = 26379
_SENTINEL_SECONDS = 0.5
_TLS = {"rediss", "valkeys"}
_TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}
_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}


class Server(NamedTuple):
    """A server, and how to reach it."""

    name: str
    """Its address, for messages, without credentials."""
    pool: ConnectionPool
    sentinels: Sequence[Redis] = ()


def read_url(url: str) -> Server:
    """Raises: InvalidSetting: the URL is invalid. It is not shown, as it may contain a password."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        scheme, _, kind = parts.scheme.partition("+")
        common = _common(parts)
        if scheme == "unix":
            return _of_socket(parts, options, common)
        if scheme in _TLS:
            common |= _tls(options)
        hosts = _hosts(parts, _SENTINEL_PORT if kind else _PORT)
        if kind:
            return _behind_sentinels(parts, hosts, options, common, tls=scheme in _TLS)
        _check_options(options)
        ((host, port),) = hosts  # only Sentinels may be several
        common |= {"host": host, "port": port, "db": _database(parts.path), "socket_keepalive": True}
    except ValueError as error:
        reason = f" ({error})" if isinstance(error, _Invalid) else ""
        raise InvalidSetting(
            f"HUBGATE_CACHE_URL is invalid{reason}. It must look like valkey://user:password@host:6379/0, or"
            " valkey+sentinel://user:password@host1:26379,host2:26379/NAME/0 with the name that Sentinel watches;"
            " special characters in the password must be percent-encoded."
        ) from None
    kind_of = SSLConnection if scheme in _TLS else Connection
    return Server(f"{host}:{port}", ConnectionPool(kind_of, **common))


class _Invalid(ValueError):
    """The message says what is wrong and repeats nothing secret."""


def _common(parts: SplitResult) -> dict[str, Any]:
    """Parameters of every connection. hubgate sets its own time limits, and repeats no command."""
    return {
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "client_name": "hubgate",
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": None,
    }


def _of_socket(parts: SplitResult, options: dict[str, str], common: dict[str, Any]) -> Server:
    database = _number(options.pop("db", "0"), "the number of the database")
    _check_options(options)
    path = unquote(parts.path)
    if not path.startswith("/") or parts.hostname:
        raise _Invalid("a socket is unix:///path/to/socket?db=0")
    return Server(path, ConnectionPool(UnixDomainSocketConnection, path=path, db=database, **common))


def _behind_sentinels(
    parts: SplitResult,
    hosts: list[tuple[str, int]],
    options: dict[str, str],
    common: dict[str, Any],
    *,
    tls: bool,
) -> Server:
    service, _, database = parts.path.removeprefix("/").partition("/")
    if not service:
        raise _Invalid("after the hosts, the name is missing that Sentinel watches")
    own = {name: common[name] for name in _TLS_OPTIONS & set(common)} | {"ssl": tls}
    asking: dict[str, Any] = own | {
        "username": options.pop("sentinel_username", None),
        "password": options.pop("sentinel_password", None),
        "socket_timeout": _SENTINEL_SECONDS,
        "socket_connect_timeout": _SENTINEL_SECONDS,
        "retry": common["retry"],
    }
    _check_options(options)
    sentinels = Sentinel(hosts, sentinel_kwargs=asking)
    pool = SentinelConnectionPool(
        unquote(service),
        sentinels,
        **common,
        ssl=tls,
        db=_database(database),
        socket_keepalive=True,
    )
    name = f"{unquote(service)} behind " + ", ".join(f"{host}:{port}" for host, port in hosts)
    return Server(name, pool, sentinels.sentinels)


def _hosts(parts: SplitResult, default: int) -> list[tuple[str, int]]:
    hosts = []
    for part in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{part}")
        if not one.hostname:
            raise _Invalid("it names no host")
        hosts.append((one.hostname, one.port or default))
    if len(hosts) > 1 and "+" not in parts.scheme:
        raise _Invalid("only a URL with +sentinel may name several hosts")
    return hosts


def _database(path: str) -> int:
    return _number(path.removeprefix("/") or "0", "after the host, the number of the database")


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise _Invalid(f"{what} must be a number")
    return int(text)


def _tls(options: dict[str, str]) -> dict[str, Any]:
    """Takes the parameters of TLS from the URL's options."""
    found: dict[str, Any] = {name: options.pop(name) for name in _TLS_OPTIONS & set(options)}
    if (check := found.pop("ssl_check_hostname", "true").lower()) not in {"true", "false"}:
        raise _Invalid("ssl_check_hostname must be true or false")
    return {**found, "ssl_check_hostname": check == "true"}


def _check_options(options: Mapping[str, str]) -> None:
    known = ", ".join(sorted(_TLS_OPTIONS | _SENTINEL_OPTIONS))
    if options:
        raise _Invalid(f"it has a parameter that does not apply; the parameters are {known}")
