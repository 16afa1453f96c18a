"""The order of the wrappers around a model, each with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubgate.domain.endpoint import Endpoint
    from hubgate.domain.ports import Answer, Upstream
    from hubgate.domain.secret import Secret


class Pipelines:
    """Builds the pipeline of each endpoint from what endpoints share."""

    def build(self, endpoint: Endpoint, token: Secret | None, upstream: Upstream) -> Answer:
        """The answer a face calls, made once when an endpoint goes live."""
        del endpoint, token
        return upstream
