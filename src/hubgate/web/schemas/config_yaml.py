"""The whole configuration as YAML: read strictly, written in the same words as the forms of the gate's own API.

    version: 1
    connections:
      team: {token: "${TEAM_TOKEN}"}
    endpoints:
      e5: {url: "https://…", connection: team}
    keys:
      dify: {endpoints: [e5]}

No secret stands in it: a token is `${NAME}`, and who applies it gives the values by name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, Literal

import msgspec
import yaml

from hubgate.domain.endpoint import Endpoint, check_name
from hubgate.domain.errors import HubgateError, InvalidRequest
from hubgate.domain.records import Connection, Key
from hubgate.domain.secret import Secret
from hubgate.domain.token_hosts import DEFAULT_HOSTS, parse_hosts
from hubgate.service.configuration.plan import Wanted, WantedConnection, WantedEndpoint
from hubgate.web.schemas.endpoint import EndpointForm
from hubgate.web.schemas.key import KeyForm
from hubgate.web.schemas.validation import convert

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MOST_DEPTH = 20
_MAX_ENTRIES = 2000
"""Each is a transaction of its own, and an endpoint may be tested."""
_LONGEST_VALUE = 10_000
"""Characters. YAML reads `1:1:1…` as a number, and takes the longer than linearly the longer it is."""
_HEAD = "# hubgate config apply FILE brings this about. Tokens are given by environment variables.\n"


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    version: Literal[1] = 1
    connections: dict[str, dict[str, Any]] | None = None
    endpoints: dict[str, dict[str, Any]] | None = None
    keys: dict[str, dict[str, Any]] | None = None


class _ConnectionEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    token: str
    hosts: list[str] | None = None


class _Loader(yaml.CSafeLoader):
    """Takes no name twice; of two, one would be lost unseen. Takes a date for the text that it is."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
        for first, known in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice, times = next(iter(names.most_common(1)), (None, 0))
        if times > 1:
            raise yaml.MarkedYAMLError(problem=f"{twice} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep=deep)


def read_config(text: str, secrets: Mapping[str, str], have_tokens: Container[tuple[str, str]]) -> Wanted:
    """What a configuration wants.

    Args:
        text: YAML.
        secrets: the values of its references, by name.
        have_tokens: whose tokens stay where none is given, as `("connection" or "endpoint", name)`.

    Raises:
        InvalidRequest: it cannot be read; says all that is wrong, and repeats no value of a token.
    """
    document = _document(text)
    entries = sum(len(part or {}) for part in (document.connections, document.endpoints, document.keys))
    if entries > _MAX_ENTRIES:
        raise InvalidRequest(
            f"A configuration has at most {_MAX_ENTRIES} entries, and this one has {entries}.",
            remedy="Split it into several files, and apply each without prune.",
        )
    reader = _Reader(secrets, have_tokens)
    wanted = Wanted(
        connections=reader.read("connections", document.connections, reader.connection),
        endpoints=reader.read("endpoints", document.endpoints, reader.endpoint),
        keys=reader.read("keys", document.keys, _key),
    )
    if reader.problems:
        raise InvalidRequest(" ".join(reader.problems[:20]), remedy="Nothing was changed.")
    return wanted


def write_config(
    connections: Iterable[Connection], endpoints: Iterable[tuple[Endpoint, bool]], keys: Iterable[Key]
) -> str:
    """The configuration that makes all this.

    Args:
        connections: those that are there.
        endpoints: each with whether it has a token of its own.
        keys: gateway keys; what is theirs alone is left out.
    """
    names = _Names()
    document: dict[str, Any] = {"version": 1}
    document["connections"] = {
        one.name: {"token": names.reference(f"connection_{one.name}")}
        | ({"hosts": list(one.hosts)} if one.hosts != DEFAULT_HOSTS else {})
        for one in connections
    }
    document["endpoints"] = {
        endpoint.name: _entry(EndpointForm.of(endpoint))
        | ({"token": names.reference(endpoint.name)} if has_token else {})
        for endpoint, has_token in endpoints
    }
    document["keys"] = {key.name: _entry(KeyForm.of(key)) for key in keys}
    written = {name: part for name, part in document.items() if part}
    return _HEAD + yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=110)


class _Reader:
    """Reads entry after entry, and remembers what is wrong."""

    def __init__(self, secrets: Mapping[str, str], have_tokens: Container[tuple[str, str]]) -> None:
        self._secrets = secrets
        self._have_tokens = have_tokens
        self.problems: list[str] = []

    def read(
        self, part: str, entries: Mapping[str, Any] | None, one: Callable[[str, Mapping[str, Any]], Any]
    ) -> dict[str, Any] | None:
        """The entries of a part, each by its name."""
        if entries is None:
            return None
        read = {}
        for name, entry in entries.items():
            try:
                if entry.get("name", name) != name:
                    raise InvalidRequest("[name] is another one than stands before it")
                read[name] = one(name, entry)
            except HubgateError as error:
                self.problems.append(f"{part}.{name}: {error.message.rstrip('.')}.")
        return read

    def connection(self, name: str, entry: Mapping[str, Any]) -> WantedConnection:
        """A connection."""
        check_name(name)
        form = convert(entry, _ConnectionEntry)
        token = self._secret(form.token, "connection", name)
        return WantedConnection(token=token, hosts=None if form.hosts is None else parse_hosts(form.hosts))

    def endpoint(self, name: str, entry: Mapping[str, Any]) -> WantedEndpoint:
        """An endpoint."""
        form = convert({**entry, "name": name}, EndpointForm)
        endpoint, _ = form.endpoint()
        if form.token is None:
            return WantedEndpoint(endpoint=endpoint)
        token = self._secret(form.token, "endpoint", name)
        return WantedEndpoint(endpoint=endpoint, token=token, keep_token=token is None)

    def _secret(self, written: str, kind: str, name: str) -> Secret | None:
        reference = REFERENCE.fullmatch(written)
        if reference is None:
            raise InvalidRequest("a token does not stand in a configuration: write ${NAME}")
        if value := self._secrets.get(reference[1]):
            return Secret(value)
        if (kind, name) in self._have_tokens:
            return None
        raise InvalidRequest(f"its token {reference[0]} is not given")


class _Names:
    """Names of variables, each used once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def reference(self, what: str) -> str:
        """`${TOKEN_OF_…}`."""
        name = first = "TOKEN_OF_" + re.sub(r"[^A-Z0-9]", "_", what.upper())
        number = 1
        while name in self._taken:
            number += 1
            name = f"{first}_{number}"
        self._taken.add(name)
        return f"${{{name}}}"


def _document(text: str) -> _Document:
    try:
        _judge(text)
        loaded = yaml.load(text, _Loader)  # noqa: S506 - a safe one
        return convert(loaded if loaded is not None else {}, _Document, whole="The configuration")
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidRequest(f"This is no YAML that can be read{line}: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, RecursionError, ArithmeticError):
        raise InvalidRequest("This is no configuration: it holds what YAML does not allow.") from None


def _judge(text: str) -> None:
    """Raises InvalidRequest for what makes a short text a large thing: aliases, long numbers, things in things in things."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        what = None
        if isinstance(event, yaml.AliasEvent):
            what = "aliases are not read"
        elif depth > _MOST_DEPTH:
            what = "it is nested too deeply"
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST_VALUE:
            what = f"a value has more than {_LONGEST_VALUE} characters"
        if what:
            raise InvalidRequest(f"This is no configuration: {what}.")


def _key(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return convert({**entry, "name": name}, KeyForm).rights()


def _entry(form: msgspec.Struct) -> dict[str, Any]:
    """A form without its name, which stands before it, and without what is usual."""
    entry: dict[str, Any] = msgspec.to_builtins(form)
    del entry["name"]
    if entry.get("rate_limit") == {}:
        del entry["rate_limit"]
    return entry
