"""Puts before each text what its model wants, so that no application needs to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hubgate.domain.calls import Call, Embed, InputType, Result
from hubgate.domain.ports import Handler


class Prompted:
    """An answer whose texts get the prefix of their input type.

    A text that bears one of the model's prefixes already is left as it is: some clients add them themselves. A call
    without an input type, or with a prompt name for the server, is left alone too.
    """

    def __init__(self, answer: Handler, prefixes: Mapping[InputType, str]) -> None:
        self._answer = answer
        self._prefixes = dict(prefixes)
        self._known = tuple(filter(None, prefixes.values()))

    async def __call__(self, call: Call) -> Result:
        """Answer one call."""
        if isinstance(call, Embed) and call.prompt_name is None and call.input_type is not None:
            # What is left of the input type says nothing more: calls with the same texts may be joined and cached.
            call = replace(call, texts=self.prefixed(call.texts, call.input_type), input_type=None)
        return await self._answer(call)

    def prefixed(self, texts: Sequence[str], kind: InputType | None) -> Sequence[str]:
        """The texts as the model reads them, if they are of this type."""
        prefix = self._prefixes.get(kind) if kind else None
        if not prefix:
            return texts
        return [text if text.startswith(self._known) else prefix + text for text in texts]
