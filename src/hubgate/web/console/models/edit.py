"""Adding and editing a model: the form, pasted text, the connection test, and the preview of chunks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count, islice
from typing import Any

from starlette.responses import Response

from hubgate.core.chunking import chunk
from hubgate.domain.chunking import parse_chunking_settings
from hubgate.domain.endpoint import Endpoint, Precision, Similarity, Source
from hubgate.domain.errors import CallerError, HubgateError, InUse
from hubgate.domain.secret import Secret
from hubgate.service.gateway import Gateway
from hubgate.service.inference.chunk_size import size_warning
from hubgate.service.inference.chunks import in_chunking_thread
from hubgate.web.console.models import form as model_form
from hubgate.web.console.models.chunking import CUSTOM, STRATEGIES, parse_chunking, split_at_chunks
from hubgate.web.console.models.form import (
    CONTROLS,
    EMPTY,
    ENGINES,
    KEEP,
    KINDS,
    NEW,
    PREFIXES,
    PROMPTS,
    RAW_FIELDS,
    WHERE,
    Faults,
)
from hubgate.web.console.models.hub_picker import Picker
from hubgate.web.console.models.page import page_of
from hubgate.web.console.models.paste import parse_pasted
from hubgate.web.console.models.trials import Trials
from hubgate.web.console.page_context import PageContext

_MAX_SAMPLE_LENGTH = 20_000
_MAX_SUGGESTIONS = 200
_NOTHING: Mapping[str, Any] = {"trial": None, "lost": False, "faults": {}, "error": None, "keepable": False}
"""The result of a form that was not submitted."""


class Editing:
    def __init__(self, gateway: Gateway, trials: Trials, picker: Picker) -> None:
        self._gateway = gateway
        self._trials = trials
        self._picker = picker

    async def add(self, context: PageContext) -> Response:
        """The empty form; `?model=` or `?paste=` fill it in."""
        query = context.request.query_params
        return self._filled(context, EMPTY, query.get("paste") or query.get("model") or "")

    async def change(self, context: PageContext) -> Response:
        endpoint = self._old(context)
        assert endpoint is not None  # noqa: S101 - the route has a name
        has_token = self._gateway.registry.token_hint(endpoint.name) is not None
        return self._form(context, model_form.form_of(endpoint, has_token=has_token), endpoint)

    async def paste(self, context: PageContext) -> Response:
        """The form again, with the fields that follow from the pasted text."""
        form = await context.form(RAW_FIELDS)
        return self._filled(context, form, form.get("paste", ""))

    async def pick(self, context: PageContext) -> Response:
        """The form again, with the fields of the model selected on the Hub."""
        form = await context.form(RAW_FIELDS)
        chosen = await self._picker.choose(form)
        return self._form(context, {**form, **chosen.fields}, self._old(context), chosen=chosen)

    async def test(self, context: PageContext) -> Response:
        """Start a connection test of the model in the form."""
        old = self._old(context)
        form = self._completed(await context.form(RAW_FIELDS), old)
        try:
            endpoint, token = model_form.endpoint_of(form, old)
            keep_token = old is not None and form.get("connection") == KEEP
            findings = await self._gateway.registry.diagnose(endpoint, token, keep_token=keep_token)
        except Faults as faults:
            return self._outcome(context, form, old, faults=faults.fields)
        except HubgateError as error:
            return self._outcome(context, form, old, error=error)
        return self._outcome(context, form, old, trial=await self._trials.begin(findings, endpoint))

    async def watch(self, context: PageContext) -> Response:
        trial = await self._trials.find(context.request.path_params["trial"])
        return context.render(
            "models/test_result.html", **{**_NOTHING, "trial": trial, "lost": trial is None}
        )

    async def save(self, context: PageContext) -> Response:
        """Register or change the model; one that fails its test can be kept, disabled."""
        old = self._old(context)
        form = self._completed(await context.form(RAW_FIELDS), old)
        try:
            endpoint, token = model_form.endpoint_of(form, old)
            done = await self._save(form, endpoint, token, old)
        except Faults as faults:
            return self._outcome(context, form, old, faults=faults.fields)
        except HubgateError as error:
            return self._outcome(context, form, old, error=error, keepable=not isinstance(error, CallerError))
        return context.redirect(page_of(endpoint.name, done))

    async def preview(self, context: PageContext) -> Response:
        """A sample text, chunked with these settings."""
        form = await context.form(RAW_FIELDS)
        sample = form.get("sample", "")[:_MAX_SAMPLE_LENGTH]
        faults: dict[str, str] = {}
        settings = parse_chunking(form, faults)
        if faults:
            return context.render("models/chunks.html", pieces=[], chunks=[], fault=None, faults=faults)
        try:
            chunks = await in_chunking_thread(partial(chunk, sample, parse_chunking_settings(settings)))
        except CallerError as error:
            return context.render("models/chunks.html", pieces=[], chunks=[], fault=error, faults={})
        return context.render(
            "models/chunks.html", pieces=split_at_chunks(sample, chunks), chunks=chunks, fault=None, faults={}
        )

    async def _save(
        self, form: Mapping[str, str], endpoint: Endpoint, token: Secret | None, old: Endpoint | None
    ) -> str:
        """Returns what was done, for the locale key `done.<what>`.

        A token with a name is stored first, and removed if storing the endpoint fails or is cancelled.
        """
        connection = form.get("token_name", "") if token and form.get("connection") == NEW else ""
        if not connection:
            return await self._put(form, endpoint, token, old)
        assert token is not None  # noqa: S101 - only a token is given a name
        await self._gateway.connections.add(connection, token, self._gateway.connections.hosts_for(endpoint))
        try:
            return await self._put(form, replace(endpoint, connection=connection), None, old)
        except BaseException:
            with suppress(InUse):  # cancelled while the endpoint was stored: it uses the token
                await self._gateway.connections.remove(connection)
            raise

    async def _put(
        self, form: Mapping[str, str], endpoint: Endpoint, token: Secret | None, old: Endpoint | None
    ) -> str:
        off = form.get("save") == "off"
        if old is not None:
            changed = replace(endpoint, enabled=endpoint.enabled and not off)
            await self._gateway.registry.edit(changed, token, keep_token=form.get("connection") == KEEP)
            return "saved"
        if off:
            await self._gateway.registry.register_disabled(endpoint, token)
            return "kept"
        await self._gateway.registry.register(endpoint, token)
        return "added"

    def _filled(self, context: PageContext, form: Mapping[str, str], pasted: str) -> Response:
        """The form with the fields that follow from the pasted text, which stays in its field only if none do."""
        found = self._read(form, pasted)
        left = "" if found else pasted
        return self._form(context, {**form, **found}, pasted=left, understood=not left)

    def _read(self, form: Mapping[str, str], pasted: str) -> dict[str, str]:
        """The fields that follow from the pasted text."""
        found = dict(parse_pasted(pasted))
        if "name" in found:
            found["name"] = self._free(found["name"])
        if "model" in found and form.get("where") == Source.DEDICATED and not form.get("url"):
            # Only a model name: assume that it is hosted.
            found.setdefault("where", Source.ROUTER)
        return found

    def _completed(self, form: Mapping[str, str], old: Endpoint | None) -> Mapping[str, str]:
        """The form of a new model, with derived fields: without scripts, the pasted text is only parsed here."""
        if old:
            return form
        if not form.get("model") and not form.get("url"):
            form = {**form, **self._read(form, form.get("paste", ""))}
        return {**form, "name": form.get("name") or self._free(model_form.proposed_name(form))}

    def _free(self, name: str) -> str:
        """The name, followed by a number if it is taken."""
        taken = {endpoint.name for endpoint in self._gateway.registry.endpoints()}
        numbered = (f"{name}-{n}" for n in count(2))
        return name if not name or name not in taken else next(one for one in numbered if one not in taken)

    def _old(self, context: PageContext) -> Endpoint | None:
        name = context.request.path_params.get("name")
        return self._gateway.registry.find(name) if name else None

    def _outcome(
        self, context: PageContext, form: Mapping[str, str], old: Endpoint | None, **outcome: Any
    ) -> Response:
        """The result of a test or of saving. With htmx, only the result, so that a typed token stays in the form."""
        if context.is_htmx:
            return context.render("models/test_result.html", **{**_NOTHING, **outcome})
        return self._form(context, form, old, **outcome)

    def _form(
        self, context: PageContext, form: Mapping[str, str], old: Endpoint | None = None, **more: Any
    ) -> Response:
        others = (endpoint.name for endpoint in self._gateway.registry.endpoints() if endpoint is not old)
        return context.render(
            "models/fields.html" if context.is_htmx else "models/form.html",
            **{
                "form": form,
                "old": old,
                "hint": self._gateway.registry.token_hint(old.name) if old else None,
                "kinds": KINDS,
                "sources": WHERE if old is None or old.source in WHERE else (old.source,),
                "strategies": STRATEGIES,
                "similarities": list(Similarity),
                "engines": ENGINES,
                "precisions": list(Precision),
                "controls": CONTROLS,
                "prefixes": list(PREFIXES),
                "prompt_fields": list(PROMPTS),
                "prompts": list((old.facts.prompts if old else None) or ()),
                "own": CUSTOM,
                "connections": [one.name for one in self._gateway.connections.all()],
                "others": list(islice(others, _MAX_SUGGESTIONS)),
                "pasted": "",
                "chosen": None,
                "understood": True,
                "cut": size_warning(old, old.chunking) if old else None,
                "keep": KEEP,
                "new": NEW,
                **_NOTHING,
                **more,
            },
        )
