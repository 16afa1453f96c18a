"""The index of the vector cache behaves as a dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubgate.store.vectors.index import VectorIndex

# Few tags in few tables, so that most of them collide.
HASHES = st.builds(lambda table, tag: tag << 8 | table, st.integers(0, 1), st.integers(0, 40))
PLACES = st.integers(2, (1 << 40) - 1)


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "put", "remove", "remove other"]), HASHES, PLACES), max_size=300
    )
)
def test_finds_what_was_put_and_not_removed(changes: list[tuple[str, int, int]]) -> None:
    index, expected = VectorIndex(), dict[int, int]()
    for change, key_hash, place in changes:
        if change == "put":
            index.put_many([(key_hash, place)])
            expected[key_hash] = place
        elif change == "remove":
            index.remove(key_hash, expected.pop(key_hash, place))
        elif expected.get(key_hash) != place:
            index.remove(key_hash, place)
    assert len(index) == len(expected)
    for table in (0, 1):
        for tag in range(41):
            assert index.find(tag << 8 | table) == expected.get(tag << 8 | table)


def test_grows_and_shrinks_with_its_content() -> None:
    index = VectorIndex()
    for turn in range(4):
        index.put_many((number, turn * 20_000 + number + 2) for number in range(20_000))
    assert len(index) == 20_000
    assert index.find_many(range(20_001)) == {number: 60_000 + number + 2 for number in range(20_000)}
    for number in range(20_000):
        index.remove(number, 60_000 + number + 2)
    assert len(index) == 0
    assert index.find(7) is None
