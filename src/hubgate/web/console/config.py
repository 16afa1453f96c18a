"""The whole configuration as YAML, from the settings page: exported, its plan shown, applied."""

from __future__ import annotations

from starlette.responses import Response

from hubgate.domain.errors import HubgateError
from hubgate.web.console.page_context import Visit
from hubgate.web.schemas.configuration import Configuration


class ConfigPage:
    """Exporting and applying, as `/api/config` does."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    async def export(self, visit: Visit) -> Response:
        """Everything but secrets."""
        return _file("hubgate", self._configuration.export())

    async def export_model(self, visit: Visit) -> Response:
        """One endpoint, without its token."""
        name = visit.request.path_params["name"]
        return _file(name, self._configuration.export_endpoint(name))

    async def apply(self, visit: Visit) -> Response:
        """Bring about what a configuration says; or only show what that takes."""
        form = await visit.form({"yaml"})
        dry_run = form.get("do") != "apply"
        try:
            steps = await self._configuration.apply(
                form.get("yaml", ""),
                _secrets(form.get("secrets", "")),
                prune="prune" in form,
                dry_run=dry_run,
                own_key=visit.session.key_id if visit.session else "",
            )
        except HubgateError as error:
            return visit.page("plan.html", steps=[], dry_run=dry_run, error=error)
        return visit.page("plan.html", steps=steps, dry_run=dry_run, error=None)


def _file(name: str, text: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}.yaml"'}
    return Response(text, media_type="application/yaml; charset=utf-8", headers=headers)


def _secrets(lines: str) -> dict[str, str]:
    """The values of a configuration's references: `NAME=value`, one a line."""
    pairs = (line.partition("=") for line in lines.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
