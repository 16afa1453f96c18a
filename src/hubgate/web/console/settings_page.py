"""The settings page: what belongs to the whole gate, and what it is made of."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from hubgate import __version__
from hubgate.core.chunking import icu_version

if TYPE_CHECKING:
    from starlette.responses import Response

    from hubgate.web.console.visit import Visit


class SettingsPage:
    """Connections, defaults, the whole configuration as YAML, and the versions."""

    async def show(self, visit: Visit) -> Response:
        """The page."""
        about = (("hubgate", __version__), ("python", platform.python_version()), ("icu", icu_version()))
        return visit.page("settings.html", about=about)
