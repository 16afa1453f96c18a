"""Planning and applying a whole configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import HubgateError, InvalidRequest
from hubgate.domain.records import Key
from hubgate.domain.secret import Secret
from hubgate.domain.token_hosts import DEFAULT_HOSTS
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.service.keys.credentials import ADMIN

Kind: TypeAlias = Literal["connection", "endpoint", "alias", "key"]
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
    aliases: Mapping[str, str] | None = None
    """The endpoint of each."""
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


class ConfigApplier:
    """Applies one configuration at a time."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access
        self._applying = asyncio.Lock()

    async def apply(
        self,
        desired: DesiredState,
        *,
        prune: bool = False,
        dry_run: bool = False,
        own_key: str = "",
        accept_new_vectors: bool = False,
    ) -> Sequence[Step]:
        """Make the changes that lead to the desired state. Idempotent.

        Args:
            desired: the desired state.
            prune: whether to remove what it does not contain, in the parts that it has.
            dry_run: whether to only return the plan.
            own_key: the id of the caller's key, which is not revoked.
            accept_new_vectors: whether aliases may be moved to vectors that cannot be compared with those before.

        Returns:
            The steps, each with its failure if it failed. A failed step does not stop the others.

        Raises:
            InvalidRequest: it is inconsistent; lists every error. Nothing was changed.
            InUse: another gateway of the same database is applying one.
            StoreFailed: the database cannot be used.
        """
        async with self._applying:
            if dry_run:
                return self._plan(desired, prune=prune, own_key=own_key)
            async with self._gateway.applying_configuration():
                steps = self._plan(desired, prune=prune, own_key=own_key)
                for step in steps:
                    try:
                        await self._apply_step(step, desired, accept_new_vectors=accept_new_vectors)
                    except HubgateError as error:
                        step.failure = error
                await self._set_fallbacks(desired, steps)
            return steps

    async def _apply_step(self, step: Step, desired: DesiredState, *, accept_new_vectors: bool) -> None:
        match step.kind:
            case "connection":
                await self._apply_connection(step, (desired.connections or {}).get(step.name))
            case "endpoint":
                await self._apply_endpoint(step, (desired.endpoints or {}).get(step.name))
            case "alias":
                endpoint = (desired.aliases or {}).get(step.name)
                await self._apply_alias(step, endpoint, accept_new_vectors=accept_new_vectors)
            case "key":
                await self._apply_key(step, (desired.keys or {}).get(step.name))

    async def _apply_connection(self, step: Step, new: DesiredConnection | None) -> None:
        if new is None:
            await self._gateway.connections.remove(step.name)
        elif step.action == "add" and new.token is not None:
            await self._gateway.connections.add(step.name, new.token, new.hosts or DEFAULT_HOSTS)
        else:
            await self._gateway.connections.replace(step.name, new.token, new.hosts)

    async def _apply_endpoint(self, step: Step, new: DesiredEndpoint | None) -> None:
        if new is None:
            await self._gateway.registry.remove(step.name)
            return
        draft = new.endpoint
        if step.action == "change":
            await self._gateway.registry.edit(draft, new.token, keep_token=new.keep_token)
        elif draft.enabled:
            await self._gateway.registry.register(self._without_missing_fallback(draft), new.token)
        else:
            await self._gateway.registry.register_disabled(self._without_missing_fallback(draft), new.token)

    async def _apply_alias(self, step: Step, endpoint: str | None, *, accept_new_vectors: bool) -> None:
        if endpoint is None:
            await self._gateway.ports.remove_alias(step.name)
        else:
            await self._gateway.ports.set_alias(step.name, endpoint, accept_new_vectors)

    async def _apply_key(self, step: Step, rights: Mapping[str, Any] | None) -> None:
        if rights is None:
            await self._access.revoke(step.name)
        elif step.action == "add":
            _, step.key = await self._access.create(step.name, **rights)
        else:
            await self._access.change(step.name, **rights)

    def _without_missing_fallback(self, draft: Endpoint) -> Endpoint:
        """A fallback may be registered later, so it is set when all endpoints exist."""
        if draft.fallback is None:
            return draft
        existing = {endpoint.name for endpoint in self._gateway.registry.endpoints()}
        return draft if draft.fallback in existing else replace(draft, fallback=None)

    async def _set_fallbacks(self, desired: DesiredState, steps: Iterable[Step]) -> None:
        for step in steps:
            if (step.action, step.kind, step.failure) == ("add", "endpoint", None):
                fallback = (desired.endpoints or {})[step.name].endpoint.fallback
                try:
                    added = self._gateway.registry.find(step.name)
                    if added.fallback != fallback:
                        await self._gateway.registry.edit(replace(added, fallback=fallback))
                except HubgateError as error:
                    step.failure = error

    def _plan(self, desired: DesiredState, *, prune: bool, own_key: str) -> list[Step]:
        steps = [
            *self._connection_steps(desired.connections or {}),
            *self._endpoint_steps(desired.endpoints or {}),
            *self._alias_steps(desired.aliases or {}),
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

    def _alias_steps(self, desired: Mapping[str, str]) -> Iterable[Step]:
        current = self._gateway.live.aliases
        for name, endpoint in desired.items():
            former = current.get(name)
            if former != endpoint:
                action: Action = "add" if former is None else "change"
                yield Step(action=action, kind="alias", name=name, changes={"endpoint": [former, endpoint]})

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
        """Keys, then aliases, endpoints and connections, so that nothing refers to what is removed."""
        kept = {ADMIN, *(desired.keys or ())}
        keys = [key.name for key in self._access.list() if key.id != own_key]
        endpoints = [endpoint.name for endpoint in self._gateway.registry.endpoints()]
        parts: tuple[tuple[Kind, list[str], Iterable[str] | None], ...] = (
            ("key", keys, None if desired.keys is None else kept),
            ("alias", list(self._gateway.live.aliases), desired.aliases),
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
        aliases = _after(steps, "alias", self._gateway.live.aliases)
        problems += self._alias_problems(desired.aliases or {}, aliases, endpoints)
        current = {key.name: _referenced(key.endpoints, key.default_endpoint) for key in self._access.list()}
        for name, rights in (desired.keys or {}).items():
            referenced = _referenced(rights["endpoints"], rights["default_endpoint"])
            missing = (
                referenced - endpoints - aliases - current.get(name, set())
            )  # a key may outlive its endpoints
            problems += [f"key {name} refers to missing endpoint [{one}]" for one in sorted(missing)]
        messages = [f"{_join(problems)}."] if problems else []
        messages += self._key_problems(desired.keys or {}, steps)
        if messages:
            raise InvalidRequest(" ".join(messages[:20]), remedy="Nothing was changed.")

    def _alias_problems(
        self, desired: Mapping[str, str], aliases: set[str], endpoints: set[str]
    ) -> Iterable[str]:
        for name, endpoint in sorted(({**self._gateway.live.aliases, **desired}).items()):
            if name in aliases and endpoint not in endpoints:
                yield f"alias {name} refers to missing endpoint [{endpoint}]"
            if name in aliases and name in endpoints:
                yield f"[{name}] is the name of both an alias and an endpoint"

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
