"""Where the vectors are, in about 21 bytes of memory each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

_SHARD_BITS = 8
_SHARDS = 1 << _SHARD_BITS
_SHARD = _SHARDS - 1
_SMALLEST = 64
_PLACE_BITS = 40
_PLACE = (1 << _PLACE_BITS) - 1
_TAG = (1 << 24) - 1
_DELETED = 1


class VectorIndex:
    """A hash table from 32 bits of a key's hash to a place: two keys in four billion are taken for each other.

    It consists of small tables, so that none takes long to grow. Each slot has a tag of 24 bits and a place of 40; tables
    are searched from the slot of the tag onwards. A look-up is safe while another thread changes the index.
    """

    def __init__(self) -> None:
        self._tables = [_table(_SMALLEST) for _ in range(_SHARDS)]
        self._free = [_room(_SMALLEST)] * _SHARDS
        """How many empty slots of each table may be used until it is replaced by a larger one."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, key_hash: int) -> int | None:
        """The place of a key."""
        return next(iter(self.find_many([key_hash]).values()), None)

    def find_many(self, key_hashes: Iterable[int]) -> dict[int, int]:
        """The places of those keys that have one."""
        tables, found = self._tables, {}
        for key_hash in key_hashes:
            table = tables[key_hash & _SHARD]
            tag, last = key_hash >> _SHARD_BITS & _TAG, len(table) - 1
            at = tag & last
            while slot := table[at]:
                if slot >> _PLACE_BITS == tag and slot != _DELETED:
                    found[key_hash] = slot & _PLACE
                    break
                at = at + 1 & last
        return found

    def put_many(self, places: Iterable[tuple[int, int]], base: int = 0) -> None:
        """Add keys or change their places, which are numbers from 2 to 2⁴⁰ - 1; `base` is added to each."""
        tables, free = self._tables, self._free
        for key_hash, place in places:
            shard, tag = key_hash & _SHARD, key_hash >> _SHARD_BITS & _TAG
            table = tables[shard]
            last = len(table) - 1
            at = tag & last
            while slot := table[at]:
                if slot >> _PLACE_BITS == tag and slot != _DELETED:
                    break
                at = at + 1 & last
            table[at] = (tag << _PLACE_BITS) + base + place
            if not slot:
                self._count += 1
                free[shard] -= 1
                if not free[shard]:
                    self._rebuild(shard)

    def remove(self, key_hash: int, place: int) -> None:
        """Remove a key, unless it has another place now."""
        shard, tag = key_hash & _SHARD, key_hash >> _SHARD_BITS & _TAG
        table = self._tables[shard]
        last = len(table) - 1
        at, wanted = tag & last, tag << _PLACE_BITS | place
        while slot := table[at]:
            if slot == wanted:
                table[at] = _DELETED
                self._count -= 1
                return
            at = at + 1 & last

    def _rebuild(self, shard: int) -> None:
        """Replace a table by one that is at most half full, without the deleted slots."""
        live = [slot for slot in self._tables[shard] if slot > _DELETED]
        size = _SMALLEST
        while size < 2 * len(live):
            size *= 2
        table, last = _table(size), size - 1
        for slot in live:
            at = slot >> _PLACE_BITS & last
            while table[at]:
                at = at + 1 & last
            table[at] = slot
        self._tables[shard] = table
        self._free[shard] = _room(size) - len(live)


def _room(size: int) -> int:
    """How many slots of a table may be taken: of vectors, and deleted ones."""
    return size * 2 // 3


def _table(size: int) -> array[int]:
    return array("Q", bytes(8 * size))
