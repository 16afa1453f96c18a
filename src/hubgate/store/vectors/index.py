"""Where the vectors are, in about 21 bytes of memory each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

_SHARDS = 256
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
        self._live = [0] * _SHARDS
        self._taken = [0] * _SHARDS
        """Slots that are not empty: of vectors, and deleted ones."""

    def __len__(self) -> int:
        return sum(self._live)

    def find(self, key_hash: int) -> int | None:
        """The place of a key."""
        return next(iter(self.find_many([key_hash]).values()), None)

    def find_many(self, key_hashes: Iterable[int]) -> dict[int, int]:
        """The places of those keys that have one."""
        tables, found = self._tables, {}
        for key_hash in key_hashes:
            table = tables[key_hash % _SHARDS]
            tag, last = key_hash // _SHARDS & _TAG, len(table) - 1
            at = tag & last
            while slot := table[at]:
                if slot >> _PLACE_BITS == tag and slot != _DELETED:
                    found[key_hash] = slot & _PLACE
                    break
                at = at + 1 & last
        return found

    def put_many(self, places: Iterable[tuple[int, int]]) -> None:
        """Add keys or change their places, which are numbers from 2 to 2⁴⁰ - 1."""
        tables = self._tables
        for key_hash, place in places:
            shard, tag = key_hash % _SHARDS, key_hash // _SHARDS & _TAG
            table = tables[shard]
            last = len(table) - 1
            at = tag & last
            while slot := table[at]:
                if slot >> _PLACE_BITS == tag and slot != _DELETED:
                    break
                at = at + 1 & last
            table[at] = tag << _PLACE_BITS | place
            if not slot:
                self._live[shard] += 1
                self._taken[shard] += 1
                if self._taken[shard] * 3 > last * 2:
                    self._rebuild(shard)

    def remove(self, key_hash: int, place: int) -> None:
        """Remove a key, unless it has another place now."""
        shard, tag = key_hash % _SHARDS, key_hash // _SHARDS & _TAG
        table = self._tables[shard]
        last = len(table) - 1
        at, wanted = tag & last, tag << _PLACE_BITS | place
        while slot := table[at]:
            if slot == wanted:
                table[at] = _DELETED
                self._live[shard] -= 1
                return
            at = at + 1 & last

    def _rebuild(self, shard: int) -> None:
        """Replace a table by one that is at most half full, without the deleted slots."""
        size = _SMALLEST
        while size < 2 * self._live[shard]:
            size *= 2
        table, last = _table(size), size - 1
        for slot in self._tables[shard]:
            if slot > _DELETED:
                at = slot >> _PLACE_BITS & last
                while table[at]:
                    at = at + 1 & last
                table[at] = slot
        self._tables[shard] = table
        self._taken[shard] = self._live[shard]


def _table(size: int) -> array[int]:
    return array("Q", bytes(8 * size))
