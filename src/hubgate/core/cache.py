"""The vector cache: one entry a text."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import cast

from msgspec.structs import replace

from hubgate.core.off_loop import LARGE_BYTES
from hubgate.core.results import cache_entries
from hubgate.core.single_flight import Awaited, SingleFlight
from hubgate.core.vectors import f32_to_json, json_to_f32
from hubgate.domain.calls import CachedVector, Call, Embed, Encoding, FreshVectors, Result, Vectors
from hubgate.domain.errors import StoreFailed
from hubgate.domain.ports import Handler, VectorCache

_OVERHEAD = 400
"""Bytes of an entry besides its vector: the key, the objects and their table slots."""
_MAX_HASH_STATES = 64
"""How many sets of options keep the state in which the hashes of their texts begin."""
_EVICTED_PART = 64
"""At least one in this many entries is evicted at once."""

_logger = logging.getLogger(__name__)


class CacheStep:
    """A pipeline step that requests only texts that are not cached, and each of them once.

    A text that is being requested already is not requested again, also not by another call (of the same caller).
    `hits` and `misses` count texts. A call with `cached=False` neither reads nor writes the cache.

    Args:
        handler: computes vectors. They are cached, so it must have checked them.
        cache: may also hold vectors of other models.
        identity: everything that determines this model's vectors and is not in the call: model, revision, pooling,
            precision and so on. Endpoints of equal identity share their vectors; no others do.
        secret: at most 64 bytes. Without it, the cache's file does not reveal which texts are in it.
    """

    def __init__(
        self, handler: Handler, cache: MemoryCache, *, identity: Sequence[str | None], secret: bytes = b""
    ) -> None:
        self._handler = handler
        self._cache = cache
        self._identity = list(identity)
        self._secret = secret
        self._hash_of = lru_cache(_MAX_HASH_STATES)(self._begin_hash)
        self._flights = SingleFlight()
        self.hits = 0
        self.misses = 0

    async def __call__(self, call: Call) -> Result:
        """If nothing is cached, the result is the upstream's own."""
        if not isinstance(call, Embed) or not call.cached:
            return await self._handler(call)
        keys = self._keys(call)
        distinct = list(dict.fromkeys(keys))
        known = await self._cache.get_many(distinct)
        if len(known) == len(distinct):
            self.hits += len(keys)
            return _assemble(self._in_encoding(call.encoding, keys, known))
        awaited = self._flights.find(call.context, distinct)
        if not known and not awaited and len(distinct) == len(keys):
            return (await self._request(call, keys)).vectors
        return await self._answer_partly(call, keys, known, awaited)

    async def are_known(self, call: Embed) -> Sequence[bool]:
        """Whether the vector of each text is cached."""
        keys = self._keys(call)
        known = await self._cache.get_many(list(dict.fromkeys(keys)))
        return [key in known for key in keys]

    async def _request(self, request: Embed, keys: Collection[bytes]) -> FreshVectors:
        self.misses += len(request.texts)
        flight = self._flights.begin(request.context, keys)
        fresh = None
        try:
            fresh = FreshVectors(keys, request.texts, cast("Vectors", await self._handler(request)))
            self._cache.put(fresh)
        finally:
            self._flights.end(flight, keys, fresh)
        return fresh

    async def _answer_partly(
        self,
        call: Embed,
        keys: Sequence[bytes],
        known: Mapping[bytes, CachedVector],
        awaited: Mapping[bytes, Awaited],
    ) -> Vectors:
        """Request what is not known and nobody requests, then wait for the rest.

        What failed for another call is requested, too.
        """
        missing = {key: text for key, text in zip(keys, call.texts, strict=True) if key not in known}
        self.hits += len(keys) - len(missing)
        answers = []
        own = {key: text for key, text in missing.items() if key not in awaited}
        if own:
            answers.append(await self._request(replace(call, texts=list(own.values())), own))
        awaited = {key: flight for key, flight in awaited.items() if key in missing}
        found = {}
        for key, flight in awaited.items():
            vectors = await asyncio.shield(flight)  # others go on waiting when this call is cancelled
            if vectors:
                found[key] = vectors[key]
        self.hits += len(found)
        lost = {key: missing[key] for key in awaited if key not in found}
        if lost:
            answers.append(await self._request(replace(call, texts=list(lost.values())), lost))
        known = {**known, **found}
        for fresh in answers:
            known |= cache_entries(fresh)
        return replace(
            _assemble([known[key] for key in keys]),
            warnings=tuple(warning for fresh in answers for warning in fresh.vectors.warnings),
            waited=sum(fresh.vectors.waited for fresh in answers),
        )

    def _in_encoding(
        self, encoding: Encoding | None, keys: Sequence[bytes], known: Mapping[bytes, CachedVector]
    ) -> list[CachedVector]:
        """The vectors of the keys. They are converted once for all who ask again, unless they are large."""
        entries = [known[key] for key in keys]
        other = [each for each in entries if each.encoding is not encoding]
        if not other or encoding is None or sum(len(each.vector) for each in other) > LARGE_BYTES:
            return entries
        convert = f32_to_json if encoding is Encoding.JSON else json_to_f32
        converted = {
            key: entry
            if entry.encoding is encoding
            else replace(entry, vector=convert(entry.vector), encoding=encoding)
            for key, entry in zip(keys, entries, strict=True)
        }
        self._cache.keep(converted)
        return [converted[key] for key in keys]

    def _keys(self, call: Embed) -> list[bytes]:
        """A digest for each text."""
        begin = self._hash_of(call.options).copy
        try:
            texts = list(map(str.encode, call.texts))
        except UnicodeEncodeError:  # half of a surrogate pair
            texts = [text.encode("utf-8", "surrogatepass") for text in call.texts]
        keys = []
        for text in texts:
            digest = begin()
            digest.update(text)
            keys.append(digest.digest())
        return keys

    def _begin_hash(self, options: tuple[object, ...]) -> hashlib.blake2b:
        """A hash whose initial state depends on the secret, the identity and the options.

        They are hashed once, into its salt and person. As a key or a prefix, they would take a block of every text's hash.
        """
        start = json.dumps([self._identity, options]).encode()
        derived = hashlib.blake2b(start, digest_size=32, key=self._secret).digest()
        return hashlib.blake2b(digest_size=32, salt=derived[:16], person=derived[16:])


def _assemble(entries: Sequence[CachedVector]) -> Vectors:
    tokens = [entry.tokens for entry in entries if entry.tokens is not None]
    flags = [entry.truncated for entry in entries if entry.truncated is not None]
    tokens_known, flags_known = len(tokens) == len(entries), len(flags) == len(entries)
    encodings = {entry.encoding for entry in entries}
    encoding = encodings.pop() if len(encodings) == 1 else Encoding.F32
    return Vectors(
        items=[
            entry.vector if entry.encoding is encoding else json_to_f32(entry.vector) for entry in entries
        ],
        encoding=encoding,
        tokens=sum(tokens) if tokens_known else None,
        exact=tokens_known and all(entry.exact for entry in entries),
        truncated=sum(flags) if flags_known else None,
        text_tokens=tokens if tokens_known else None,
        text_truncated=flags if flags_known else None,
    )


class MemoryCache:
    """The most recently used vectors, in at most `max_bytes` of memory, in front of a slower cache.

    If the slower cache is near, a new vector is not kept in memory before it is asked for again. If it fails, vectors
    are computed again.
    """

    def __init__(self, max_bytes: int, backing: VectorCache | None = None) -> None:
        self._max_bytes = max_bytes
        self._backing = backing
        self._vectors: dict[bytes, CachedVector] = {}
        """Those used last are last."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._vectors)

    async def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, CachedVector]:
        found: dict[bytes, CachedVector] = {}
        self._find(keys, found)
        missing = [key for key in keys if key not in found] if found else keys
        if self._backing is not None and missing:
            try:
                backed = await self._backing.get_many(missing)
            except StoreFailed as error:
                _logger.warning("the vector cache cannot be read: %s", error)
            else:
                if backed:
                    self.keep(backed)
                    found |= backed
            self._find(keys, found)  # others may have been stored meanwhile
        return found

    def _find(self, keys: Sequence[bytes], found: dict[bytes, CachedVector]) -> None:
        """Add what is in memory to `found`."""
        kept = self._vectors
        if kept.keys().isdisjoint(keys):
            return
        for key in keys:
            if key in kept and key not in found:
                found[key] = kept[key] = kept.pop(key)

    def put(self, fresh: FreshVectors) -> None:
        """Store vectors. Those unused for longest are evicted."""
        if self._backing is None or not self._backing.is_near:
            self.keep(cache_entries(fresh))
        if self._backing is not None:
            self._backing.put(fresh)

    def clear(self) -> None:
        """Delete the vectors in memory."""
        self._vectors.clear()
        self.bytes = 0

    def keep(self, vectors: Mapping[bytes, CachedVector]) -> None:
        """Store vectors in memory only."""
        kept = self._vectors
        if not kept.keys().isdisjoint(vectors):
            self._remove([key for key in vectors if key in kept])
        kept.update(vectors)
        self.bytes += _size(vectors.values())
        while self.bytes > self._max_bytes:
            # Many at once: a dictionary searches from its beginning for what is left there.
            self._remove(list(islice(kept, 1 + len(kept) // _EVICTED_PART)))

    def _remove(self, keys: Sequence[bytes]) -> None:
        self.bytes -= _size(list(map(self._vectors.pop, keys)))


def _size(entries: Collection[CachedVector]) -> int:
    return sum([len(entry.vector) for entry in entries]) + _OVERHEAD * len(entries)
