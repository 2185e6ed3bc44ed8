"""A node looks for garbage rarely: up to a third of its CPU went there (`make bench SCENARIO=drain-stub`)."""

import gc

from clockwork.__main__ import COLLECT_EVERY, collect_rarely


def test_what_a_node_starts_with_is_walked_through_never_and_the_rest_rarely() -> None:
    before = gc.get_threshold()
    try:
        collect_rarely()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() == (COLLECT_EVERY, *before[1:])
        assert gc.isenabled(), "cycles are collected all the same"
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
