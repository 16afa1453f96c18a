"""What stands where a model would: nothing, if it is switched off; one that two have; one whose answers are noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from hubgate.domain.calls import Call, Result
from hubgate.domain.errors import EndpointDisabled
from hubgate.domain.ports import Upstream


class SwitchedOff:
    """In the place of the model of an endpoint that is switched off: nothing is opened, nothing answers.

    No call comes here, for such an endpoint refuses them first: see `hubgate.service.registry.live_endpoints`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(self, call: Call) -> NoReturn:  # noqa: ARG002 - the port's shape
        """Refuse. Raises: EndpointDisabled."""
        raise EndpointDisabled(self._name)

    async def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True, eq=False)
class Lent:
    """A loaded model that goes on under new settings, while calls under the old ones end. The last to leave frees it."""

    model: Upstream
    users: int = 1

    def lend(self) -> Lent:
        """Let one more use it."""
        self.users += 1
        return self

    async def __call__(self, call: Call) -> Result:
        """Answer one call."""
        return await self.model(call)

    async def close(self) -> None:
        """Leave it."""
        self.users -= 1
        if not self.users:
            await self.model.close()


@dataclass(slots=True, eq=False)
class Noticed:
    """A model whose answers are noticed: where one has come from, a server runs."""

    model: Upstream
    answered: Callable[[], None]

    async def __call__(self, call: Call) -> Result:
        """Answer one call."""
        result = await self.model(call)
        self.answered()
        return result

    async def close(self) -> None:
        """Free it."""
        await self.model.close()
