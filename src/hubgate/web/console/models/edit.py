"""Adding a model and changing one: the form, what is pasted into it, its test, and the preview of its chunks."""

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
from hubgate.service.inference.cutting import in_cutting_thread
from hubgate.web.console.models import form as model_form
from hubgate.web.console.models.chunk_form import OWN, STRATEGIES, chunking_of
from hubgate.web.console.models.chunk_preview import marked
from hubgate.web.console.models.form import (
    CONTROLS,
    EMPTY,
    ENGINES,
    KEEP,
    KINDS,
    NEW,
    PREFIXES,
    RAW_FIELDS,
    WHERE,
    Faults,
)
from hubgate.web.console.models.hub_picker import Picker
from hubgate.web.console.models.page import page_of
from hubgate.web.console.models.paste import understood
from hubgate.web.console.models.trials import Trials
from hubgate.web.console.page_context import PageContext

_MOST_PREVIEWED = 20_000
"""Characters."""
_MOST_OTHERS = 200
"""Names that are suggested."""
_NOTHING: Mapping[str, Any] = {"trial": None, "lost": False, "faults": {}, "error": None, "keepable": False}
"""What came of a form that was not sent."""


class Editing:
    """The form."""

    def __init__(self, gateway: Gateway, trials: Trials, picker: Picker) -> None:
        self._gateway = gateway
        self._trials = trials
        self._picker = picker

    async def add(self, context: PageContext) -> Response:
        """The empty form; with `?model=` or `?paste=`, filled in as far as that says."""
        query = context.request.query_params
        return self._filled(context, EMPTY, query.get("paste") or query.get("model") or "")

    async def change(self, context: PageContext) -> Response:
        """The form of a registered model."""
        endpoint = self._old(context)
        assert endpoint is not None  # noqa: S101 - the route has a name
        has_token = self._gateway.registry.token_hint(endpoint.name) is not None
        return self._form(context, model_form.form_of(endpoint, has_token=has_token), endpoint)

    async def paste(self, context: PageContext) -> Response:
        """The form again, with what follows from what was pasted."""
        form = await context.form(RAW_FIELDS)
        return self._filled(context, form, form.get("paste", ""))

    async def pick(self, context: PageContext) -> Response:
        """The form again, with what follows from the model that was chosen on the Hub."""
        form = await context.form(RAW_FIELDS)
        chosen = await self._picker.choose(form)
        return self._form(context, {**form, **chosen.fields}, self._old(context), chosen=chosen)

    async def test(self, context: PageContext) -> Response:
        """Begin to go the way to the model that the form describes."""
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
        return self._outcome(context, form, old, trial=self._trials.begin(findings))

    async def watch(self, context: PageContext) -> Response:
        """How far a test is."""
        trial = self._trials.find(context.request.path_params["trial"])
        return context.render(
            "models/test_result.html", **{**_NOTHING, "trial": trial, "lost": trial is None}
        )

    async def save(self, context: PageContext) -> Response:
        """Register the model, or change it; what fails its test can be kept, switched off."""
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
        """A sample text, as these settings cut it."""
        form = await context.form(RAW_FIELDS)
        sample = form.get("sample", "")[:_MOST_PREVIEWED]
        faults: dict[str, str] = {}
        settings = chunking_of(form, faults)
        if faults:
            return context.render("models/chunks.html", pieces=[], chunks=[], fault=None, faults=faults)
        try:
            chunks = await in_cutting_thread(partial(chunk, sample, parse_chunking_settings(settings)))
        except CallerError as error:
            return context.render("models/chunks.html", pieces=[], chunks=[], fault=error, faults={})
        return context.render(
            "models/chunks.html", pieces=marked(sample, chunks), chunks=chunks, fault=None, faults={}
        )

    async def _save(
        self, form: Mapping[str, str], endpoint: Endpoint, token: Secret | None, old: Endpoint | None
    ) -> str:
        """What was done, for the words `done.<what>`.

        A token that is to have a name is stored first, and forgotten if the endpoint is not: it failed, or its visitor
        went away.
        """
        connection = form.get("token_name", "") if token and form.get("connection") == NEW else ""
        if not connection:
            return await self._put(form, endpoint, token, old)
        assert token is not None  # noqa: S101 - a name is given to a token
        await self._gateway.connections.add(connection, token, self._gateway.connections.hosts_for(endpoint))
        try:
            return await self._put(form, replace(endpoint, connection=connection), None, old)
        except BaseException:
            with suppress(InUse):  # who left while it was stored has it stored
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
        """The form with what follows from what was pasted, which stays to be mended only if nothing does."""
        found = self._read(form, pasted)
        left = "" if found else pasted
        return self._form(context, {**form, **found}, pasted=left, understood=not left)

    def _read(self, form: Mapping[str, str], pasted: str) -> dict[str, str]:
        """The fields that follow from what was pasted."""
        found = dict(understood(pasted))
        if "name" in found:
            found["name"] = self._free(found["name"])
        if "model" in found and form.get("where") == Source.DEDICATED and not form.get("url"):
            # The name of a model, and nothing that says where else it runs: it is called at Hugging Face.
            found.setdefault("where", Source.ROUTER)
        return found

    def _completed(self, form: Mapping[str, str], old: Endpoint | None) -> Mapping[str, str]:
        """The form of a new model with what follows from it: without scripts nobody read what was pasted."""
        if old:
            return form
        if not form.get("model") and not form.get("url"):
            form = {**form, **self._read(form, form.get("paste", ""))}
        return {**form, "name": form.get("name") or self._free(model_form.proposed_name(form))}

    def _free(self, name: str) -> str:
        """A name, with a number behind it if it is taken."""
        taken = {endpoint.name for endpoint in self._gateway.registry.endpoints()}
        numbered = (f"{name}-{n}" for n in count(2))
        return name if not name or name not in taken else next(one for one in numbered if one not in taken)

    def _old(self, context: PageContext) -> Endpoint | None:
        name = context.request.path_params.get("name")
        return self._gateway.registry.find(name) if name else None

    def _outcome(
        self, context: PageContext, form: Mapping[str, str], old: Endpoint | None, **outcome: Any
    ) -> Response:
        """What came of a test or of saving: beside the form, which stays as it is with the token typed into it."""
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
                "own": OWN,
                "connections": [one.name for one in self._gateway.connections.all()],
                "others": list(islice(others, _MOST_OTHERS)),
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
