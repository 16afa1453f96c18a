"""What all gateways should know about the models' servers: that one sleeps, fails, or wants a pause.

A notice has a name and holds for a limited time. Every gateway reads all of them twice a second, so no call asks for
them, and there are few: none as long as all servers work. A gateway that cannot read them goes on with those that it
knows, until they end, and with what it finds out itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from weakref import WeakSet

from hubgate.domain.cluster_ports import NoticeBoard, PostedNotice
from hubgate.domain.errors import StoreFailed
from hubgate.domain.ports import Clock

_POLL_SECONDS = 0.5
_RENEWALS = 3
"""A kept notice is posted again this often within the time for which it holds."""
_SAME = 0.25
"""Seconds by which two readings of one notice may disagree about its end."""

_log = logging.getLogger(__name__)


class SharedNotices:
    """The notices of all gateways, as this one knows them.

    Args:
        board: where they are.
        gateway: a name that no other gateway has.
        clock: seconds that never go back.
    """

    def __init__(self, board: NoticeBoard, gateway: str, clock: Clock) -> None:
        self._board = board
        self._gateway = gateway
        self.clock = clock
        self._known: dict[str, Known] = {}
        self._changed_at = clock()
        """When a notice was last posted or found other than by reading all."""
        self._open: WeakSet[Notice] = WeakSet()
        self._opened = 0
        self._kept: dict[Notice, tuple[PostedNotice, float]] = {}
        """What is posted again, and when it was posted last."""
        self._sending: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self._failing = False

    def notice(self, name: str) -> Notice:
        """The notice of this name, for one user of it."""
        self._opened += 1
        notice = Notice(self, name, f"{self._gateway}/{self._opened}")
        self._open.add(notice)
        return notice

    def known(self, name: str) -> Known | None:
        known = self._known.get(name)
        return known if known and known.until > self.clock() else None

    async def start(self) -> None:
        """Read them, and go on reading until `close`."""
        await self._read()
        self._following = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        for notice in list(self._kept):
            notice.remove()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def post(self, posted: PostedNotice, *, replace: bool) -> float:
        """See `NoticeBoard.post`."""
        left = await self._board.post(posted, replace=replace)
        now = self._changed_at = self.clock()
        known = self.known(posted.name)
        if left and (known is None or known.owner == posted.owner):
            self._known[posted.name] = Known("", "", now + left)
        return left

    def keep(self, notice: Notice, posted: PostedNotice) -> None:
        """Post it again as long as this gateway lives."""
        self._kept[notice] = posted, self.clock()

    def release(self, notice: Notice) -> None:
        self._kept.pop(notice, None)

    def send(self, message: Callable[[NoticeBoard], Awaitable[object]]) -> None:
        """Nobody waits for the answer."""
        # In a context of its own: it does not belong to the caller that happens to start it.
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._send(message), context=contextvars.Context())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, message: Callable[[NoticeBoard], Awaitable[object]]) -> None:
        try:
            await message(self._board)
            self._changed_at = self.clock()
        except StoreFailed as error:
            self._note_failure(error)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            now = self.clock()
            for notice, (posted, at) in list(self._kept.items()):
                if now >= at + posted.seconds / _RENEWALS:
                    notice.renew(posted)
            await self._read()

    async def _read(self) -> None:
        asked = self.clock()
        try:
            posted = await self._board.read() if self._open else ()
        except StoreFailed as error:
            self._note_failure(error)
            now = self.clock()
            self._replace({name: each for name, each in self._known.items() if each.until > now})
            return
        if self._failing:
            _log.info("what other gateways find out about models' servers is known here again")
        self._failing = False
        if self._changed_at <= asked:  # otherwise it may be older than what is known
            now = self.clock()
            self._replace({each.name: Known(each.owner, each.text, now + each.seconds) for each in posted})

    def _note_failure(self, error: StoreFailed) -> None:
        if not self._failing:
            _log.warning("what other gateways find out about models' servers is not known here: %s", error)
        self._failing = True

    def _replace(self, new: dict[str, Known]) -> None:
        old, self._known = self._known, new
        changed = {name for name in old.keys() | new.keys() if _differ(old.get(name), new.get(name))}
        if changed:
            for notice in list(self._open):
                if notice.name in changed:
                    notice.on_change()


class Known:
    """A notice as this gateway knows it. Until it is read, the owner of one that was met is empty."""

    __slots__ = ("owner", "text", "until")

    def __init__(self, owner: str, text: str, until: float) -> None:
        self.owner, self.text, self.until = owner, text, until


class Notice:
    """A notice of one name, as one part of a gateway uses it."""

    def __init__(self, shared: SharedNotices, name: str, owner: str) -> None:
        self._shared = shared
        self.name = name
        self._owner = owner
        self.on_change: Callable[[], None] = _ignore
        """Called when `of_others` may have changed."""

    @property
    def of_others(self) -> tuple[str, float] | None:
        """The text and the seconds left of a notice that somebody else posted and that holds."""
        known = self._shared.known(self.name)
        if known is None or known.owner == self._owner:
            return None
        return known.text, known.until - self._shared.clock()

    def post(self, text: str, seconds: float) -> None:
        """Let all know, in place of the former notice. Nobody waits for it."""
        posted = PostedNotice(name=self.name, owner=self._owner, text=text, seconds=seconds)
        self._shared.send(lambda board: board.post(posted))

    async def claim(self, seconds: float, *, keep: bool = False) -> float:
        """Post, unless somebody else has a notice of this name; returns for how many seconds that one holds, or 0.

        If the board cannot be used, this gateway is alone, and it counts as posted.

        Args:
            seconds: for which it holds.
            keep: whether it holds on as long as this gateway lives, until `remove`.
        """
        posted = PostedNotice(name=self.name, owner=self._owner, seconds=seconds)
        try:
            left = await self._shared.post(posted, replace=False)
        except StoreFailed:
            left = 0.0
        if keep and not left:
            self._shared.keep(self, posted)
        return left

    def renew(self, posted: PostedNotice) -> None:
        self._shared.keep(self, posted)
        self._shared.send(lambda board: board.post(posted, replace=False))

    def remove(self) -> None:
        """Remove it, if it is this part's. Nobody waits for it."""
        self._shared.release(self)
        self._shared.send(lambda board: board.remove(self.name, self._owner))


def _differ(one: Known | None, other: Known | None) -> bool:
    if one is None or other is None:
        return one is not other
    return one.owner != other.owner or one.text != other.text or abs(one.until - other.until) > _SAME


def _ignore() -> None:
    pass
