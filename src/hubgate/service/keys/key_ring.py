"""The keys that a gateway accepts, in memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hubgate.domain.records import Key
from hubgate.service.keys.credentials import CLI


class KeyRing:
    """Keys by digest and by id, so that no request looks at all of them: there may be 100,000."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._by_digest: dict[bytes, Key] = {}
        self._by_id: dict[str, Key] = {}
        self._names: dict[str, str] = {}
        self._oldest_first: list[str] | None = None
        """The ids in this order, once somebody asked for it."""
        self.get = self._by_digest.get
        """The key of a digest, or `None`."""
        self.by_id = self._by_id.get
        """The key with an id, or `None`."""
        for key in keys:
            self.put(key)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_digest.values())

    @property
    def names(self) -> Mapping[str, str]:
        """The name of each key by its id, always as it is now."""
        return self._names

    def put(self, key: Key) -> None:
        """Add a key, or replace the one with its digest."""
        old = self._by_digest.get(key.digest)
        if old is not None and old.id != key.id:
            self.remove(old)
        if key.id not in self._by_id:
            self._oldest_first = None
        self._by_digest[key.digest] = self._by_id[key.id] = key
        self._names[key.id] = key.name

    def remove(self, key: Key) -> None:
        """Remove a key that is here."""
        del self._by_digest[key.digest], self._by_id[key.id], self._names[key.id]
        self._oldest_first = None

    def find(self, id_or_name: str) -> Key | None:
        """The key with an id, or else the one with a name."""
        if (key := self._by_id.get(id_or_name)) is not None:
            return key
        return next((key for key in self if key.name == id_or_name), None)

    def ids(self) -> Sequence[str]:
        """The ids of all keys but that of the command line, in the order of their creation."""
        if self._oldest_first is None:
            self._oldest_first = sorted(
                (key_id for key_id in self._by_id if key_id != CLI), key=self._created
            )
        return self._oldest_first

    def page(self, limit: int | None = None, after: str | None = None) -> Sequence[Key] | None:
        """Keys, oldest first, from the one that follows the id `after`; `None` if no key has this id."""
        ids, start = self.ids(), 0
        if after is not None:
            if after not in self._by_id or after == CLI:
                return None
            start = ids.index(after, bisect_left(ids, self._created(after), key=self._created)) + 1
        return [self._by_id[key_id] for key_id in ids[start : None if limit is None else start + limit]]

    def _created(self, key_id: str) -> float:
        return self._by_id[key_id].created_at
