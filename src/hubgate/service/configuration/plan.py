"""What it takes to come from the configuration that is there to the one that is wanted, and whether that fits together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import HubgateError, InvalidRequest
from hubgate.domain.records import Key
from hubgate.domain.secret import Secret
from hubgate.domain.token_hosts import DEFAULT_HOSTS
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.service.keys.credentials import ADMIN

Kind: TypeAlias = Literal["connection", "endpoint", "key"]
Action: TypeAlias = Literal["add", "change", "remove"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedConnection:
    """A connection as it is wanted. What is `None` stays as it is."""

    token: Secret | None = None
    hosts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedEndpoint:
    """An endpoint as it is wanted. With `keep_token` the token that it has stays."""

    endpoint: Endpoint
    token: Secret | None = None
    keep_token: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is wanted, by name; a part that is `None` stays as it is."""

    connections: Mapping[str, WantedConnection] | None = None
    endpoints: Mapping[str, WantedEndpoint] | None = None
    keys: Mapping[str, Mapping[str, Any]] | None = None
    """Fields of `Key`, from `admin` on."""


@dataclass(slots=True, kw_only=True)
class Step:
    """One change, and what came of it."""

    action: Action
    kind: Kind
    name: str
    changes: Mapping[str, list[Any]] = field(default_factory=dict)
    """`[before, after]` by setting; never a secret."""
    failure: HubgateError | None = None
    key: str | None = None
    """A key that was made, in plain: it cannot be shown again."""


class Planning:
    """Plans are made from what is there at the moment."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access

    def plan(self, wanted: Wanted, *, prune: bool, spared_key: str) -> list[Step]:
        """The steps to what is wanted, in their order; for the arguments see `Config.apply`.

        Raises:
            InvalidRequest: it would not fit together; says all that is wrong.
        """
        steps = [
            *self._connection_steps(wanted.connections or {}),
            *self._endpoint_steps(wanted.endpoints or {}),
            *self._key_steps(wanted.keys or {}),
        ]
        if prune:
            steps += self._removals(wanted, spared_key)
        self._check(wanted, steps)
        return steps

    def _connection_steps(self, wanted: Mapping[str, WantedConnection]) -> Iterable[Step]:
        there = self._gateway.connections.by_name
        for name, one in wanted.items():
            old = there.get(name)
            changes: dict[str, list[Any]] = {}
            if one.token is not None and (old is None or one.token != old.token):
                changes["token"] = [old.token.hint if old and old.token else None, one.token.hint]
            hosts = one.hosts or (old.hosts if old else DEFAULT_HOSTS)
            if hosts != (old.hosts if old else DEFAULT_HOSTS):
                changes["hosts"] = [old.hosts if old else None, hosts]
            if changes:
                yield Step(action="change" if old else "add", kind="connection", name=name, changes=changes)

    def _endpoint_steps(self, wanted: Mapping[str, WantedEndpoint]) -> Iterable[Step]:
        there = {endpoint.name: endpoint for endpoint in self._gateway.registry.endpoints()}
        new_first = sorted(wanted.items(), key=lambda item: item[0] in there)  # others may fall back to them
        for name, one in new_first:
            old = there.get(name)
            if old is None:
                yield Step(action="add", kind="endpoint", name=name, changes=_news(one.endpoint))
                continue
            changes = _difference(old, one.endpoint)
            token = None if old.connection else self._gateway.registry.token(name)
            if not one.keep_token and one.token != token:
                changes["token"] = [token.hint if token else None, one.token.hint if one.token else None]
            if changes:
                yield Step(action="change", kind="endpoint", name=name, changes=changes)

    def _key_steps(self, wanted: Mapping[str, Mapping[str, Any]]) -> Iterable[Step]:
        there = {key.name: key for key in self._access.list()}
        for name, rights in wanted.items():
            old = there.get(name)
            if old is None:
                if self._access.has_expired(rights["expires_at"]):
                    continue  # it would let nobody in
                changes = {right: [None, value] for right, value in rights.items() if value}
                yield Step(action="add", kind="key", name=name, changes=changes)
            elif changes := _key_changes(old, rights):
                yield Step(action="change", kind="key", name=name, changes=changes)

    def _removals(self, wanted: Wanted, spared_key: str) -> Iterable[Step]:
        """Keys first, then endpoints, then connections: so that nobody needs what goes."""
        kept = {ADMIN, *(wanted.keys or ())}
        keys = [key.name for key in self._access.list() if key.id != spared_key]
        endpoints = [endpoint.name for endpoint in self._gateway.registry.endpoints()]
        parts: tuple[tuple[Kind, list[str], Iterable[str] | None], ...] = (
            ("key", keys, None if wanted.keys is None else kept),
            ("endpoint", endpoints, wanted.endpoints),
            ("connection", list(self._gateway.connections.by_name), wanted.connections),
        )
        for kind, there, wished in parts:
            if wished is not None:
                gone = set(there).difference(wished)
                yield from (Step(action="remove", kind=kind, name=name) for name in sorted(gone))

    def _check(self, wanted: Wanted, steps: Sequence[Step]) -> None:
        """Raises InvalidRequest with all that would not fit together once it is done."""
        connections = _after(steps, "connection", self._gateway.connections.by_name)
        endpoints = _after(steps, "endpoint", (one.name for one in self._gateway.registry.endpoints()))
        problems = []
        for endpoint in self._endpoints_after(wanted, endpoints):
            if endpoint.connection is not None and endpoint.connection not in connections:
                problems.append(f"endpoint {endpoint.name} names connection [{endpoint.connection}]")
            if endpoint.fallback is not None and endpoint.fallback not in endpoints:
                problems.append(f"endpoint {endpoint.name} falls back to [{endpoint.fallback}]")
        there = {key.name: _named(key.endpoints, key.default_endpoint) for key in self._access.list()}
        for name, rights in (wanted.keys or {}).items():
            named = _named(rights["endpoints"], rights["default_endpoint"])
            gone = named - endpoints - there.get(name, set())  # a key may outlive the endpoints that it names
            problems += [f"key {name} names endpoint [{one}]" for one in sorted(gone)]
        told = [f"{_listed(problems)}, and that is not there."] if problems else []
        told += self._key_problems(wanted.keys or {}, steps)
        if told:
            raise InvalidRequest(" ".join(told[:20]), remedy="Nothing was changed.")

    def _key_problems(self, wanted: Mapping[str, Mapping[str, Any]], steps: Iterable[Step]) -> Iterable[str]:
        for step in steps:
            if step.kind == "key" and step.action != "remove":
                try:
                    self._check_key(step, wanted[step.name])
                except InvalidRequest as error:
                    yield f"keys.{step.name}: {error.message} {error.remedy}".rstrip()

    def _check_key(self, step: Step, rights: Mapping[str, Any]) -> None:
        if step.action == "add":
            self._access.draft(step.name, **rights)
            return
        if "admin" in step.changes:
            raise InvalidRequest(
                "It does not become an admin key, nor does it cease to be one.",
                remedy="Revoke it first, or give the other one another name.",
            )
        self._access.changed(step.name, **rights)

    def _endpoints_after(self, wanted: Wanted, names: set[str]) -> Iterable[Endpoint]:
        given = wanted.endpoints or {}
        for name in sorted(names):
            yield given[name].endpoint if name in given else self._gateway.registry.find(name)


def _after(steps: Iterable[Step], kind: Kind, there: Iterable[str]) -> set[str]:
    """The names that there are once the steps are done."""
    names = set(there)
    for step in steps:
        if step.kind == kind:
            (names.discard if step.action == "remove" else names.add)(step.name)
    return names


def _news(endpoint: Endpoint) -> dict[str, list[Any]]:
    """Its settings that are no defaults."""
    plain = Endpoint(
        name=endpoint.name, task=endpoint.task, source=endpoint.source, url=endpoint.url, model=endpoint.model
    )
    told = ("task", "source", "url", "model")
    where = {name: [None, getattr(endpoint, name)] for name in told if getattr(endpoint, name) is not None}
    return where | {name: [None, after] for name, (_, after) in _difference(plain, endpoint).items()}


def _difference(old: Endpoint, new: Endpoint) -> dict[str, list[Any]]:
    names = [one.name for one in fields(Endpoint) if one.name != "facts"]
    pairs = {name: [getattr(old, name), getattr(new, name)] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _key_changes(old: Key, rights: Mapping[str, Any]) -> dict[str, list[Any]]:
    pairs = {name: [getattr(old, name), value] for name, value in rights.items()}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _named(endpoints: Iterable[str], default: str | None) -> set[str]:
    """The endpoints that a key names."""
    return {*endpoints, *filter(None, [default])}


def _listed(problems: Sequence[str]) -> str:
    return "; ".join(problems[:20]) + ("; and more" if problems[20:] else "")
