"""The configuration as YAML, parsed strictly; entries have the same fields as in `/api`.

    version: 1
    connections:
      team: {token: "${TEAM_TOKEN}"}
    endpoints:
      e5: {url: "https://…", connection: team}
    aliases:
      search: {endpoint: e5}
    keys:
      dify: {endpoints: [search]}

It contains no secrets: a token is written as `${NAME}`, and whoever applies the file supplies the values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
import yaml

from hubgate.domain.endpoint import Endpoint, check_name
from hubgate.domain.errors import HubgateError, InvalidRequest
from hubgate.domain.records import Connection, Key
from hubgate.domain.secret import Secret
from hubgate.domain.token_hosts import DEFAULT_HOSTS, HUGGING_FACE, parse_hosts
from hubgate.service.configuration import DesiredConnection, DesiredEndpoint, DesiredState
from hubgate.web.schemas.endpoint import EndpointForm
from hubgate.web.schemas.key import KeyForm
from hubgate.web.schemas.validation import convert

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MAX_DEPTH = 20
_MAX_ENTRIES = 2000
"""Each entry is applied in its own transaction, and an endpoint may be tested."""
_MAX_VALUE_LENGTH = 10_000
"""YAML parses `1:1:1…` as a number, in more than linear time."""
_HEADER = "# Apply with `hubgate config apply FILE`. Tokens are read from environment variables.\n"


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    version: Literal[1] = 1
    connections: dict[str, dict[str, Any]] | None = None
    endpoints: dict[str, dict[str, Any]] | None = None
    aliases: dict[str, dict[str, Any]] | None = None
    keys: dict[str, dict[str, Any]] | None = None


class _ConnectionEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    token: str
    hosts: list[str] | None = None


class _AliasEntry(msgspec.Struct, forbid_unknown_fields=True):
    endpoint: str


class _Loader(yaml.CSafeLoader):
    """Rejects duplicate keys, of which one would be lost silently, and loads dates as strings."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
        for first, known in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        key, count = next(iter(counts.most_common(1)), (None, 0))
        if count > 1:
            raise yaml.MarkedYAMLError(problem=f"duplicate key {key}", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep=deep)


def read_config(
    text: str, secrets: Mapping[str, str], have_tokens: Container[tuple[str, str]]
) -> DesiredState:
    """Parse a configuration.

    Args:
        text: YAML.
        secrets: values of the references, by name.
        have_tokens: `("connection" or "endpoint", name)` of everything whose token stays if no value is given.

    Raises:
        InvalidRequest: lists every problem; contains no token.
    """
    document = _document(text)
    parts = (document.connections, document.endpoints, document.aliases, document.keys)
    entries = sum(len(part or {}) for part in parts)
    if entries > _MAX_ENTRIES:
        raise InvalidRequest(
            f"The configuration has {entries} entries; the maximum is {_MAX_ENTRIES}.",
            remedy="Split it into several files and apply each without prune.",
        )
    reader = _Reader(secrets, have_tokens)
    wanted = DesiredState(
        connections=reader.read("connections", document.connections, reader.connection),
        endpoints=reader.read("endpoints", document.endpoints, reader.endpoint),
        aliases=reader.read("aliases", document.aliases, _alias_endpoint),
        keys=reader.read("keys", document.keys, _key),
    )
    if reader.problems:
        raise InvalidRequest(" ".join(reader.problems[:20]), remedy="Nothing was changed.")
    return wanted


def token_hosts(text: str) -> Mapping[str, Sequence[str]]:
    """Where the tokens of a configuration may be sent: for each `${NAME}`, hosts in printable words.

    It reads more than `read_config` accepts, because the gateway that gets the text may be of another version.

    Raises:
        InvalidRequest: the text is not a configuration.
    """
    document = _document(text)
    hosts: dict[str, dict[str, None]] = {}

    def add(entry: Mapping[str, Any], where: Iterable[str]) -> None:
        if reference := REFERENCE.fullmatch(str(entry.get("token"))):
            hosts.setdefault(reference[1], {}).update(dict.fromkeys(where))

    for name, entry in (document.connections or {}).items():
        given = map(_host, _strings(entry.get("hosts")))
        add(entry, tuple(given) or [f"{HUGGING_FACE}, or the hosts that connection {name!a} has"])
    for entry in (document.endpoints or {}).values():
        urls = [_host(one) for one in _strings(entry) if "://" in one]
        add(entry, [*urls, *([HUGGING_FACE] if not urls or entry.get("provider") else ())])
    return {name: tuple(found) for name, found in hosts.items()}


def write_config(
    connections: Iterable[Connection],
    endpoints: Iterable[tuple[Endpoint, bool]],
    aliases: Mapping[str, str],
    keys: Iterable[Key],
) -> str:
    """Write a configuration.

    Args:
        connections: stored tokens.
        endpoints: each with whether it has a token of its own.
        aliases: the endpoint of each.
        keys: gateway keys; ids and secrets are left out.
    """
    variables = _Variables()
    document: dict[str, Any] = {"version": 1}
    document["connections"] = {
        one.name: {"token": variables.reference(f"connection_{one.name}")}
        | ({"hosts": list(one.hosts)} if one.hosts != DEFAULT_HOSTS else {})
        for one in connections
    }
    document["endpoints"] = {
        endpoint.name: _entry(EndpointForm.of(endpoint))
        | ({"token": variables.reference(endpoint.name)} if has_token else {})
        for endpoint, has_token in endpoints
    }
    document["aliases"] = {name: {"endpoint": endpoint} for name, endpoint in sorted(aliases.items())}
    document["keys"] = {key.name: _entry(KeyForm.of(key)) for key in keys}
    sections = {name: section for name, section in document.items() if section}
    return _HEADER + yaml.safe_dump(sections, sort_keys=False, allow_unicode=True, width=110)


def _strings(value: object) -> Iterator[str]:
    """All texts in a value of YAML."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _host(text: str) -> str:
    """The host of a URL without credentials, or a host, in printable words."""
    try:
        parts = urlsplit(text)
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else text
        return parse_hosts([host])[0]
    except (InvalidRequest, ValueError):
        return ascii(text[:200])


class _Reader:
    def __init__(self, secrets: Mapping[str, str], have_tokens: Container[tuple[str, str]]) -> None:
        self._secrets = secrets
        self._have_tokens = have_tokens
        self.problems: list[str] = []

    def read(
        self, section: str, entries: Mapping[str, Any] | None, parse: Callable[[str, Mapping[str, Any]], Any]
    ) -> dict[str, Any] | None:
        """Parse the entries of a section, by name; problems are collected."""
        if entries is None:
            return None
        parsed = {}
        for name, entry in entries.items():
            try:
                if entry.get("name", name) != name:
                    raise InvalidRequest("[name] differs from the name of the entry")
                parsed[name] = parse(name, entry)
            except HubgateError as error:
                self.problems.append(f"{section}.{name}: {error.message.rstrip('.')}.")
        return parsed

    def connection(self, name: str, entry: Mapping[str, Any]) -> DesiredConnection:
        check_name(name)
        form = convert(entry, _ConnectionEntry)
        token = self._secret(form.token, "connection", name)
        return DesiredConnection(token=token, hosts=None if form.hosts is None else parse_hosts(form.hosts))

    def endpoint(self, name: str, entry: Mapping[str, Any]) -> DesiredEndpoint:
        form = convert({**entry, "name": name}, EndpointForm)
        endpoint, _ = form.endpoint()
        if form.token is None:
            return DesiredEndpoint(endpoint=endpoint)
        token = self._secret(form.token, "endpoint", name)
        return DesiredEndpoint(endpoint=endpoint, token=token, keep_token=token is None)

    def _secret(self, written: str, kind: str, name: str) -> Secret | None:
        reference = REFERENCE.fullmatch(written)
        if reference is None:
            raise InvalidRequest("a configuration cannot contain a token: write ${NAME} instead")
        if value := self._secrets.get(reference[1]):
            return Secret(value)
        if (kind, name) in self._have_tokens:
            return None
        raise InvalidRequest(f"no value is given for its token {reference[0]}")


class _Variables:
    """Names of environment variables, each used once."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def reference(self, owner: str) -> str:
        """`${TOKEN_OF_…}`."""
        name = first = "TOKEN_OF_" + re.sub(r"[^A-Z0-9]", "_", owner.upper())
        number = 1
        while name in self._used:
            number += 1
            name = f"{first}_{number}"
        self._used.add(name)
        return f"${{{name}}}"


def _document(text: str) -> _Document:
    try:
        _check_size(text)
        loaded = yaml.load(text, _Loader)  # noqa: S506 - a subclass of the safe loader
        return convert(loaded if loaded is not None else {}, _Document, whole="The configuration")
    except yaml.MarkedYAMLError as error:
        line = f" on line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidRequest(f"Invalid YAML{line}: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, RecursionError, ArithmeticError):
        raise InvalidRequest("Invalid YAML: it contains a value that YAML does not allow.") from None


def _check_size(text: str) -> None:
    """Reject what makes a short text expensive: aliases, long numbers, deep nesting."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise InvalidRequest("Invalid configuration: YAML aliases are not supported.")
        if depth > _MAX_DEPTH:
            raise InvalidRequest("Invalid configuration: it is nested too deeply.")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _MAX_VALUE_LENGTH:
            raise InvalidRequest(f"Invalid configuration: a value exceeds {_MAX_VALUE_LENGTH} characters.")


def _alias_endpoint(name: str, entry: Mapping[str, Any]) -> str:
    check_name(name)
    return convert(entry, _AliasEntry).endpoint


def _key(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return convert({**entry, "name": name}, KeyForm).rights()


def _entry(form: msgspec.Struct) -> dict[str, Any]:
    """A form without its name, which is the key of the entry, and without defaults."""
    # msgspec's omit_defaults omits an integer only if it is the same object as the default.
    defaults = {field.name: field.default for field in msgspec.structs.fields(form)}
    entry: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(form).items():
        given = getattr(form, name)
        shown = _entry(given) if isinstance(given, msgspec.Struct) else value
        if name != "name" and given != defaults[name] and shown != {}:
            entry[name] = shown
    return entry
