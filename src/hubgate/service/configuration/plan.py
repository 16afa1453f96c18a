"""The steps from the current configuration to a desired one, and whether the result is consistent."""

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
class DesiredConnection:
    """`None` keeps the current value."""

    token: Secret | None = None
    hosts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredEndpoint:
    """With `keep_token` the current token stays."""

    endpoint: Endpoint
    token: Secret | None = None
    keep_token: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """The desired objects by name. A part that is `None` stays as it is."""

    connections: Mapping[str, DesiredConnection] | None = None
    endpoints: Mapping[str, DesiredEndpoint] | None = None
    keys: Mapping[str, Mapping[str, Any]] | None = None
    """Fields of `Key`, from `admin` on."""


@dataclass(slots=True, kw_only=True)
class Step:
    """One change, and its result."""

    action: Action
    kind: Kind
    name: str
    changes: Mapping[str, list[Any]] = field(default_factory=dict)
    """`[before, after]` by setting; never a secret."""
    failure: HubgateError | None = None
    key: str | None = None
    """A new key in plain text, which cannot be shown again."""


class Planner:
    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access

    def plan(self, desired: DesiredState, *, prune: bool, own_key: str) -> list[Step]:
        """The ordered steps to the desired state; see `ConfigApplier.apply`.

        Raises:
            InvalidRequest: the result would be inconsistent; lists every error.
        """
        steps = [
            *self._connection_steps(desired.connections or {}),
            *self._endpoint_steps(desired.endpoints or {}),
            *self._key_steps(desired.keys or {}),
        ]
        if prune:
            steps += self._removals(desired, own_key)
        self._check(desired, steps)
        return steps

    def _connection_steps(self, desired: Mapping[str, DesiredConnection]) -> Iterable[Step]:
        current = self._gateway.connections.by_name
        for name, one in desired.items():
            old = current.get(name)
            changes: dict[str, list[Any]] = {}
            if one.token is not None and (old is None or one.token != old.token):
                changes["token"] = [old.token.hint if old and old.token else None, one.token.hint]
            hosts = one.hosts or (old.hosts if old else DEFAULT_HOSTS)
            if hosts != (old.hosts if old else DEFAULT_HOSTS):
                changes["hosts"] = [old.hosts if old else None, hosts]
            if changes:
                yield Step(action="change" if old else "add", kind="connection", name=name, changes=changes)

    def _endpoint_steps(self, desired: Mapping[str, DesiredEndpoint]) -> Iterable[Step]:
        current = {endpoint.name: endpoint for endpoint in self._gateway.registry.endpoints()}
        new_first = sorted(desired.items(), key=lambda item: item[0] in current)  # may be fallbacks of others
        for name, one in new_first:
            old = current.get(name)
            if old is None:
                yield Step(action="add", kind="endpoint", name=name, changes=_initial(one.endpoint))
                continue
            changes = _difference(old, one.endpoint)
            token = None if old.connection else self._gateway.registry.token(name)
            if not one.keep_token and one.token != token:
                changes["token"] = [token.hint if token else None, one.token.hint if one.token else None]
            if changes:
                yield Step(action="change", kind="endpoint", name=name, changes=changes)

    def _key_steps(self, desired: Mapping[str, Mapping[str, Any]]) -> Iterable[Step]:
        current = {key.name: key for key in self._access.list()}
        for name, rights in desired.items():
            old = current.get(name)
            if old is None:
                if self._access.has_expired(rights["expires_at"]):
                    continue
                changes = {right: [None, value] for right, value in rights.items() if value}
                yield Step(action="add", kind="key", name=name, changes=changes)
            elif changes := _key_changes(old, rights):
                yield Step(action="change", kind="key", name=name, changes=changes)

    def _removals(self, desired: DesiredState, own_key: str) -> Iterable[Step]:
        """Keys, then endpoints, then connections, so that nothing refers to what is removed."""
        kept = {ADMIN, *(desired.keys or ())}
        keys = [key.name for key in self._access.list() if key.id != own_key]
        endpoints = [endpoint.name for endpoint in self._gateway.registry.endpoints()]
        parts: tuple[tuple[Kind, list[str], Iterable[str] | None], ...] = (
            ("key", keys, None if desired.keys is None else kept),
            ("endpoint", endpoints, desired.endpoints),
            ("connection", list(self._gateway.connections.by_name), desired.connections),
        )
        for kind, current, kept_names in parts:
            if kept_names is not None:
                removed = set(current).difference(kept_names)
                yield from (Step(action="remove", kind=kind, name=name) for name in sorted(removed))

    def _check(self, desired: DesiredState, steps: Sequence[Step]) -> None:
        connections = _after(steps, "connection", self._gateway.connections.by_name)
        endpoints = _after(steps, "endpoint", (one.name for one in self._gateway.registry.endpoints()))
        problems = []
        for endpoint in self._endpoints_after(desired, endpoints):
            if endpoint.connection is not None and endpoint.connection not in connections:
                problems.append(
                    f"endpoint {endpoint.name} refers to missing connection [{endpoint.connection}]"
                )
            if endpoint.fallback is not None and endpoint.fallback not in endpoints:
                problems.append(f"endpoint {endpoint.name} refers to missing fallback [{endpoint.fallback}]")
        current = {key.name: _referenced(key.endpoints, key.default_endpoint) for key in self._access.list()}
        for name, rights in (desired.keys or {}).items():
            referenced = _referenced(rights["endpoints"], rights["default_endpoint"])
            missing = referenced - endpoints - current.get(name, set())  # a key may outlive its endpoints
            problems += [f"key {name} refers to missing endpoint [{one}]" for one in sorted(missing)]
        messages = [f"{_join(problems)}."] if problems else []
        messages += self._key_problems(desired.keys or {}, steps)
        if messages:
            raise InvalidRequest(" ".join(messages[:20]), remedy="Nothing was changed.")

    def _key_problems(self, desired: Mapping[str, Mapping[str, Any]], steps: Iterable[Step]) -> Iterable[str]:
        for step in steps:
            if step.kind == "key" and step.action != "remove":
                try:
                    self._check_key(step, desired[step.name])
                except InvalidRequest as error:
                    yield f"keys.{step.name}: {error.message} {error.remedy}".rstrip()

    def _check_key(self, step: Step, rights: Mapping[str, Any]) -> None:
        if step.action == "add":
            self._access.draft(step.name, **rights)
            return
        if "admin" in step.changes:
            raise InvalidRequest(
                "[admin] cannot be changed.",
                remedy="Revoke the key first, or choose another name for the new one.",
            )
        self._access.changed(step.name, **rights)

    def _endpoints_after(self, desired: DesiredState, names: set[str]) -> Iterable[Endpoint]:
        given = desired.endpoints or {}
        for name in sorted(names):
            yield given[name].endpoint if name in given else self._gateway.registry.find(name)


def _after(steps: Iterable[Step], kind: Kind, current: Iterable[str]) -> set[str]:
    """The names that exist after the steps."""
    names = set(current)
    for step in steps:
        if step.kind == kind:
            (names.discard if step.action == "remove" else names.add)(step.name)
    return names


def _initial(endpoint: Endpoint) -> dict[str, list[Any]]:
    """The settings of a new endpoint that differ from the defaults."""
    defaults = Endpoint(
        name=endpoint.name, task=endpoint.task, source=endpoint.source, url=endpoint.url, model=endpoint.model
    )
    always = ("task", "source", "url", "model")
    changes = {
        name: [None, getattr(endpoint, name)] for name in always if getattr(endpoint, name) is not None
    }
    return changes | {name: [None, value] for name, (_, value) in _difference(defaults, endpoint).items()}


def _difference(old: Endpoint, new: Endpoint) -> dict[str, list[Any]]:
    names = [one.name for one in fields(Endpoint) if one.name != "facts"]
    pairs = {name: [getattr(old, name), getattr(new, name)] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _key_changes(old: Key, rights: Mapping[str, Any]) -> dict[str, list[Any]]:
    pairs = {name: [getattr(old, name), value] for name, value in rights.items()}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _referenced(endpoints: Iterable[str], default: str | None) -> set[str]:
    return {*endpoints, *filter(None, [default])}


def _join(problems: Sequence[str]) -> str:
    return "; ".join(problems[:20]) + ("; and more" if problems[20:] else "")
