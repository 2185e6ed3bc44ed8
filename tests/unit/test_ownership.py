"""Changes for one node by a rebalance."""

from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.ownership import AssignmentChange, assignment_change
from clockwork.domain.sharding import ShardId

shard_sets = st.frozensets(st.integers(0, 20).map(ShardId))


def _shards(*numbers: int) -> frozenset[ShardId]:
    return frozenset(ShardId(number) for number in numbers)


def test_a_shard_that_comes_back_to_the_same_node_is_kept() -> None:
    change = assignment_change(_shards(1, 2, 3), _shards(2, 3, 4))

    assert change == AssignmentChange(gained=_shards(4), kept=_shards(2, 3), lost=_shards(1))


def test_a_first_assignment_is_all_gain() -> None:
    assert assignment_change(set(), _shards(0, 1)) == AssignmentChange(
        gained=_shards(0, 1), kept=_shards(), lost=_shards()
    )


@given(shard_sets, shard_sets)
def test_every_shard_is_gained_kept_or_lost_and_only_one_of_them(
    before: frozenset[ShardId], after: frozenset[ShardId]
) -> None:
    change = assignment_change(before, after)

    assert change.gained | change.kept == after
    assert change.lost | change.kept == before
    assert not change.gained & before
    assert not change.lost & after
