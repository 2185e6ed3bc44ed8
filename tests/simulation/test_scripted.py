"""Breaks that chance meets too seldom, each shown by a history written by hand: with the rule it goes well, without it not.

The rules are those that were found by review and by simulation, and the rarest of the checked model.
"""

from contextlib import nullcontext

import pytest

from clockwork.domain.sharding import ShardId
from tests.simulation.faults import StepFault
from tests.simulation.mutations import RARE, applied
from tests.simulation.scripted import TOPIC, Script, pause, profile


def a_retry_mark_is_applied_after_its_row_was_fired() -> Script:
    # x-no-promise. A held row of a paused topic: the mark "waits" is not answered, and is applied late. The topic
    # goes on at once; the row must not, or a cancel that believes the late mark lies.
    script = Script(profile())
    pauses, store = script.cluster.worlds.pauses, script.cluster.worlds.store
    script.at(0.6, lambda: script.create("late", due_s=1.0))
    script.at(0.9, lambda: pauses.pause(TOPIC, at_ms=0))
    script.at(2.15, lambda: store.forced.update(set_retry=[3.0] + [None] * 40))
    script.at(2.2, lambda: script.cancel("late"))
    script.at(2.5, lambda: pauses.resume(TOPIC))
    script.delay_cleanup(2.5)
    for fiftieth in range(262, 280):
        script.at(fiftieth / 50, lambda: script.cancel("late"))
    return script


def a_zombie_writes_a_retry_under_the_new_owner_s_delivery() -> Script:
    # x-retry-noepoch: refused, paused before its `retry`; the new owner delivers; now the old `retry` says "waits".
    script = Script(profile(step_faults=[pause("set_retry", 1, 2.0)]))
    script.at(0.9, lambda: script.create("twice-owned", due_s=1.0, refused=1))
    script.delay_cleanup(1.0)
    for tenth in range(30, 45):
        script.at(tenth / 10, lambda: script.cancel("twice-owned"))
    return script


def a_zombie_sends_at_least_once_what_its_successor_was_refused() -> Script:
    # x-alo-retry-cancel: paused before its send; the new owner is refused and says "waits".
    script = Script(profile(step_faults=[pause("send", 1, 4.0)]))
    script.at(0.9, lambda: script.create("again", due_s=1.0, refused=1, at_least_once=True))
    for tenth in range(25, 40):
        script.at(tenth / 10, lambda: script.cancel("again"))
    return script


def a_copy_of_a_hold_comes_after_the_owner_took_it_off() -> Script:
    # Held (a copy stays on the way), looked at; paused; the owner takes the hold off and fires; the copy puts it back.
    script = Script(profile(step_faults=[pause("cancel", 1, 0.5)]))
    script.at(0.6, lambda: script.create("held", due_s=1.1))
    script.cluster.worlds.store.forced["hold"] = [0.5]
    script.at(0.75, lambda: script.cancel("held"))
    script.delay_cleanup(1.0)
    return script


def a_refused_owner_goes_on_while_its_successor_takes_over() -> Script:
    # x-fence-late. Two lanes in one transaction, one refused; paused. Its successor has initialised its ids, and pauses
    # before the flag. The old owner wakes up: R1, R2, sends again, pauses before its marker; its successor fires.
    step_faults = [pause("refused", 1, 2.0, after=True), pause("fence", 1, 0.82), pause("produce_marker", 1, 0.25)]
    return _bad_and_good(_one_slot(*step_faults))


def a_refused_owner_goes_on_after_its_successor_s_init() -> Script:
    # x-no-fence: the same, and no flag is ever set.
    step_faults = [
        pause("refused", 1, 2.0, after=True),
        pause("read_markers", 1, 0.82),
        pause("produce_marker", 1, 0.25),
    ]
    return _bad_and_good(_one_slot(*step_faults))


def a_refused_owner_wakes_up_after_its_successor_delivered() -> Script:
    # x-no-recheck. Its successor has delivered both rows; the old one initialises its id, and is the newest producer of it.
    step_faults = [pause("refused", 1, 2.5, after=True)]
    return _bad_and_good(_one_slot(*step_faults))


def an_owner_that_does_not_know_its_commit_wakes_up_after_its_successor_delivered() -> Script:
    # x-heal-no-recheck: the commit was never carried out; paused before R1. It has lost the group before.
    script = _one_slot(pause("init", 2, 0.9), pause("fence", 1, 0.4))
    script.at(0.7, script.cut_owner_off)
    script.at(0.6, lambda: script.create("row", due_s=1.0))
    script.at(0.95, lambda: script.cluster.worlds.kafka.forced.update(commit=[99.0, 99.0, 99.0]))
    return script


def an_owner_uses_its_slot_for_the_first_time_when_it_is_fenced() -> Script:
    # x-lazy: the slot is counted, and paused before its init; its successor initialises it, too, and fires.
    script = _one_slot(pause("init", 1, 0.9), pause("fence", 1, 0.6))
    script.at(0.45, lambda: script.create("row", due_s=1.9))
    script.at(0.55, script.cut_owner_off)
    return script


def an_owner_delivers_between_its_successor_s_marker_and_init() -> Script:
    # x-mark-first. It has lost the group. Its successor pauses before the flag, and again before the init.
    step_faults = [pause("fence", 1, 0.8), pause("produce_marker", 2, 0.2), pause("init", 2, 0.3)]
    return _early_and_between(_one_slot(*step_faults))


def an_owner_delivers_between_its_successor_s_marker_and_fence() -> Script:
    # x-mark-before-fence: the same; its successor reads markers first.
    step_faults = [pause("read_markers", 1, 0.8), pause("produce_marker", 2, 0.2), pause("init", 2, 0.3)]
    return _early_and_between(_one_slot(*step_faults))


def an_owner_has_an_open_transaction_in_one_of_two_slots() -> Script:
    # Both have been used. It has lost the group, and pauses before its marker; its successor takes over meanwhile.
    step_faults = [pause("fence", 1, 0.8), pause("produce_marker", 3, 0.25)]
    script = Script(profile(step_faults=step_faults, scan_interval_ms=4_000, lead_ms=6_000, quick_rows=1))
    script.at(0.6, lambda: script.create("beside", due_s=1.0))
    return _early_and_between(script)


def a_commit_is_carried_out_after_its_owner_looked_for_the_marker() -> Script:
    # x-heal-mark-first. (Reading waits for the own open transaction, too, so this rule is kept twice.)
    script = Script(profile(nodes=1, step_faults=[pause("init", 2, 0.35)]))
    script.at(0.6, lambda: script.create("row", due_s=1.0))
    script.cluster.worlds.kafka.forced["commit"] = [0.95, 99.0, 99.0]
    return script


def a_copy_of_a_commit_comes_in_the_middle_of_the_next_transaction() -> Script:
    # The first commit is asked for twice; its first copy commits what of the second transaction is there, without marker.
    script = Script(profile(nodes=1, step_faults=[pause("produce_marker", 2, 0.25)]))
    script.at(0.6, lambda: script.create("first", due_s=1.0))
    script.at(0.6, lambda: script.create("second", due_s=1.4))
    script.at(0.99, lambda: script.cluster.worlds.kafka.forced.update(commit=[0.5]))
    return script


def a_deposed_coordinator_is_asked_for_a_commit() -> Script:
    # It coordinated "first". "second" is begun at the next coordinator, whose answer to EndTxn is lost; the deposed one
    # takes it for a repeat of the first.
    script = Script(profile(nodes=1, step_faults=[pause("commit", 2, 0.1)]))
    script.at(0.6, lambda: script.create("first", due_s=1.0))
    script.at(0.6, lambda: script.create("second", due_s=1.6))
    script.at(1.3, script.depose_coordinator)
    script.at(1.55, lambda: script.cluster.worlds.kafka.forced.update(commit=[99.0]))
    script.at(1.9, script.ask_the_deposed)
    script.at(2.4, script.ask_the_others)
    return script


def a_deposed_leader_is_asked_for_a_marker() -> Script:
    # K5. It led the markers' Kafka partition until 1.2; "row" is delivered by the next leader; its owner dies before the
    # cleanup. A node that asks the deposed one does not find the marker of "row".
    script = _early_and_row()
    script.at(2.0, script.mislead_to_the_deposed)
    script.at(5.0, script.ask_the_others)
    return script


def a_taker_knows_the_deposed_leader_of_the_markers() -> Script:
    # K5: from its cache.
    script = _early_and_row()
    script.at(2.0, script.remember_the_deposed)
    return script


def a_deposed_leader_has_another_record_where_the_barrier_is() -> Script:
    # It has taken records that no other broker has.
    script = _early_and_row()
    script.at(2.0, script.lengthen_the_deposed)
    script.at(2.0, script.remember_the_leader)
    script.at(2.0, script.mislead_to_the_deposed)
    script.at(5.0, script.ask_the_others)
    return script


def a_paused_schedule_s_pointer_expires() -> Script:
    # E9. Its topic is paused for longer than its pointer lives; its client creates it once more.
    script = Script(profile(retention_ms=1_000, pointer_margin_ms=3_000, faults_end_s=14.0))
    pauses = script.cluster.worlds.pauses
    script.at(0.6, lambda: script.create("key", due_s=1.0))
    script.at(0.9, lambda: pauses.pause(TOPIC, at_ms=0))
    script.at(10.0, lambda: script.create("key", due_s=1.0))
    script.at(11.0, lambda: pauses.resume(TOPIC))
    return script


def a_key_is_used_again_after_its_pointer_was_deleted() -> Script:
    # E9. A create has found the key over, and pauses. The pointer is deleted, and another create makes the key's next
    # schedule, of version 1 again.
    script = Script(profile(nodes=3, step_faults=[pause("create", 3, 1.0)], retention_ms=1_000))
    script.at(0.6, lambda: script.create("key", due_s=1.0))
    script.at(3.4, script.history.ops.clear)  # the story of a key begins anew when its retention is over
    script.at(3.5, lambda: script.create("key", due_s=9.0, body="-one"))
    script.at(3.8, lambda: script.delete_pointer("key"))
    script.at(4.0, lambda: script.create("key", due_s=9.0, body="-two"))
    return script


def _one_slot(*step_faults: StepFault) -> Script:
    """Nothing stops a fenced owner but the rule in question: its frontier lies far ahead, it looks at its own item at 4.0
    only, and claims no other slot."""
    return Script(profile(step_faults=step_faults, scan_interval_ms=4_000, lead_ms=6_000, one_slot=True))


def an_owner_dies_when_the_offset_of_an_aborted_marker_is_stored() -> Script:
    # The commit of "second" was asked for and never carried out; the next frontier is stored meanwhile. The marker of
    # "first", which is not cleaned up, stands before that of "second".
    script = Script(profile())
    kafka = script.cluster.worlds.kafka
    for key, due_s in (("first", 1.0), ("second", 1.4), ("third", 1.7)):
        script.at(0.6, lambda key=key, due_s=due_s: script.create(key, due_s=due_s))  # type: ignore[misc]
    script.delay_cleanup(0.95)
    script.at(1.3, lambda: kafka.forced.update(commit=[99.0] * 5))
    script.at(1.85, script.kill_owner)
    script.at(1.9, kafka.forced.clear)
    return script


def _bad_and_good(script: Script) -> Script:
    script.at(0.9, lambda: script.create("bad", due_s=1.0, refused=1))
    script.at(0.9, lambda: script.create("good", due_s=1.0))
    return script


def _early_and_between(script: Script) -> Script:
    script.at(0.6, lambda: script.create("early", due_s=1.0))
    script.at(0.6, lambda: script.create("between", due_s=3.0))
    script.at(1.2, script.cut_owner_off)
    script.delay_cleanup(2.9)
    return script


def _early_and_row() -> Script:
    script = Script(profile())
    script.at(0.6, lambda: script.create("early", due_s=1.0))
    script.at(0.6, lambda: script.create("row", due_s=1.5))
    script.at(1.4, script.depose_leader_of_markers)
    script.delay_cleanup(1.45)
    script.at(1.95, script.kill_owner)
    return script


def a_cancel_comes_before_the_new_owner_s_frontier() -> Script:
    # x-alo-floor. A zombie is about to send; its successor owns the shard, and has read nothing yet.
    script = Script(profile(nodes=3, step_faults=[pause("send", 1, 3.0)], scan_interval_ms=4_000))
    script.at(0.6, lambda: script.create("sent", due_s=1.0, at_least_once=True))
    script.at(1.65, lambda: script.pause_next("raise_frontier", 2.0))
    script.at(2.0, lambda: script.cancel("sent"))
    return script


def a_late_send_of_an_owner_that_has_released() -> Script:
    # x-alo-release-floor. The send had no answer, and is on its way; the shard is released, its next owner has read nothing.
    script = Script(profile(nodes=3))
    script.at(0.6, lambda: script.create("sent", due_s=1.0, at_least_once=True))
    script.cluster.worlds.kafka.forced["send"] = [4.0] * 40
    script.at(1.9, script.stop_owner)
    script.at(2.4, lambda: script.pause_next("raise_frontier", 2.0))
    script.at(2.8, lambda: script.cancel("sent"))
    return script


def a_taker_is_fenced_and_swept_before_it_owns_anything() -> Script:
    # x-sweep. It has read a released shard and pauses; meanwhile it is fenced and swept, as no shard names it.
    script = Script(profile(nodes=1, step_faults=[pause("take_shards", 1, 1.0)]))
    script.at(0.9, script.sweep_everything)
    script.at(2.5, lambda: script.create("any", due_s=3.0))
    return script


def an_incarnation_ends_before_what_was_acknowledged_is_cleaned_up() -> Script:
    # at_least_once: acknowledged, and fenced by an operator before the cleanup. The next incarnation must not send it again.
    script = Script(profile(nodes=1))
    script.at(0.6, lambda: script.create("sent", due_s=1.01, at_least_once=True))
    script.at(0.6, lambda: script.create("next", due_s=1.14))
    script.at(1.03, lambda: script.cluster.fence(ShardId(0)))
    return script


def a_schedule_is_created_just_before_a_row_that_waits() -> Script:
    # "bad" waits since 2.0; "first" was due when it was created, and stands before it; its wake-up is lost.
    script = Script(profile(scan_interval_ms=1_000))
    script.lose_wakeups()
    script.at(0.9, lambda: script.create("bad", due_s=2.0, refused=99))
    script.at(0.9, lambda: script.create("second", due_s=2.4, lane="lane"))
    script.at(2.2, lambda: script.create("first", due_s=1.9, lane="lane"))
    return script


def a_schedule_is_created_within_the_blocked_prefix() -> Script:
    # E5. "bad" waits for its second attempt since 7.0, and is the prefix. "first" stands before it; its wake-up tells so.
    script = Script(profile(scan_interval_ms=1_000, faults_end_s=14.0))
    script.at(0.9, lambda: script.create("bad", due_s=1.0, refused=99))
    script.at(9.0, lambda: script.create("second", due_s=10.09, lane="lane"))
    script.at(10.0, lambda: script.create("first", due_s=0.95, lane="lane"))
    return script


def a_schedule_is_created_within_the_prefix_while_a_pass_reads_behind_it() -> Script:
    # E5. The same, and its wake-up comes when the pass that fires "second" has asked for its page.
    script = Script(profile(scan_interval_ms=1_000, faults_end_s=14.0))
    script.at(0.9, lambda: script.create("bad", due_s=1.0, refused=99))
    script.at(9.0, lambda: script.create("second", due_s=10.09, lane="lane"))
    script.lose_wakeups()
    script.at(10.06, lambda: script.create("first", due_s=0.95, lane="lane"))
    script.at(10.085, script.slow_the_store_down)
    script.at(10.1, lambda: script.wake(due_s=0.95))
    script.at(10.5, script.slow_the_store_down_no_more)
    return script


def an_owner_s_clock_jumps_before_it_writes_a_retry() -> Script:
    # Refused; then the clock jumps an hour ahead. Later owners, whose clocks are right, must not wait for that hour.
    script = Script(profile(nodes=1, step_faults=[pause("refused", 1, 0.5, after=True)]))
    script.at(0.9, lambda: script.create("hour", due_s=1.0, refused=1))
    script.at(1.2, lambda: script.cluster.nodes[0].host.clock.jump(3_600_000.0))
    return script


def an_answer_of_the_store_takes_until_a_later_row_is_due() -> Script:
    # x-prefetch-late. The Query that fires another lane's row sees the later one of two; the earlier one is accepted after
    # it passed, before the later one is due; its answer is worked on when that is due.
    script = Script(profile(lead_ms=600))
    script.at(0.9, lambda: script.create("other", due_s=1.9))
    script.at(0.9, lambda: script.create("later", due_s=2.0, lane="lane"))
    script.at(1.89, lambda: script.pause_next("read_page", 0.5, after=True))
    script.at(1.93, lambda: script.create("earlier", due_s=1.5, lane="lane"))
    return script


def a_cancel_s_answer_is_lost_and_its_key_used_again() -> Script:
    # It cancelled, and its answer was lost. The client has seen the end and made a new schedule, which must stay.
    script = Script(profile())
    script.at(0.6, lambda: script.create("key", due_s=4.0))
    script.cluster.worlds.store.forced["cancel"] = [0.01, 0.01, 0.01]
    script.at(1.0, lambda: script.cancel("key"))
    script.at(1.1, lambda: script.find("key"))
    script.at(1.2, lambda: script.create("key", due_s=4.0, body="-new"))
    return script


def a_change_s_answer_is_lost_and_another_change_follows() -> Script:
    # It was made, and its answer was lost. Another request has changed the schedule since: a repeat would undo that.
    script = Script(profile())
    forced = script.cluster.worlds.store.forced
    script.at(0.6, lambda: script.create("key", due_s=4.0))
    script.at(1.0, lambda: forced.update(reschedule=[0.01]))
    script.at(1.0, lambda: script.change("key", due_s=4.5))
    script.at(1.05, lambda: script.change("key", due_s=5.0, body="-theirs"))
    script.at(1.12, lambda: forced.update(reschedule=[None, None]))
    script.at(3.0, lambda: script.find("key"))
    return script


def a_member_that_was_frozen_goes_on_with_what_another_one_has_answered() -> Script:
    # It stops before it looks for the schedule; the other one answers 404; the client is told so and creates one.
    script = Script(profile(commanded=True))
    script.at(1.0, lambda: script.pause_next("read_pointer", 2.5))
    script.at(1.01, lambda: script.command_cancel("key"))
    script.at(3.0, lambda: script.create("key", due_s=6.0))
    script.at(5.0, lambda: script.find("key"))
    return script


def what_was_created_after_one_looked_is_cancelled_by_another() -> Script:
    # It stops, and its partition moves. The other one finds nothing to cancel, and stops before it notes that. There is a
    # schedule now; the first one finds it, sees no note, and stops before it cancels it. The other one notes, and says 404.
    script = Script(
        profile(
            nodes=3,
            commanded=True,
            step_faults=[pause("read_pointer", 1, 0.9), pause("read_command_note", 1, 0.3), pause("cancel", 1, 1.0)],
        )
    )
    script.at(1.01, lambda: script.command_cancel("key"))
    script.at(1.85, lambda: script.create("key", due_s=6.0))
    script.at(5.0, lambda: script.find("key"))
    return script


SCRIPTS = {
    "commands have their effect whatever was noted meanwhile": what_was_created_after_one_looked_is_cancelled_by_another,
    "commands without an effect are not noted": a_member_that_was_frozen_goes_on_with_what_another_one_has_answered,
    "bound of the answer": an_answer_of_the_store_takes_until_a_later_row_is_due,
    "a retry an hour ahead applies": an_owner_s_clock_jumps_before_it_writes_a_retry,
    "only one slot initialised": an_owner_has_an_open_transaction_in_one_of_two_slots,
    "hint to an uncommitted marker": an_owner_dies_when_the_offset_of_an_aborted_marker_is_stored,
    "marker before init": an_owner_delivers_between_its_successor_s_marker_and_init,
    "marker before the fence": an_owner_delivers_between_its_successor_s_marker_and_fence,
    "no recheck after a refusal": a_refused_owner_wakes_up_after_its_successor_delivered,
    "no recheck after an unknown commit": (
        an_owner_that_does_not_know_its_commit_wakes_up_after_its_successor_delivered
    ),
    "no recheck at the first use of a slot": an_owner_uses_its_slot_for_the_first_time_when_it_is_fenced,
    "own marker before init": a_commit_is_carried_out_after_its_owner_looked_for_the_marker,
    "slot goes on after a repeated commit": a_copy_of_a_commit_comes_in_the_middle_of_the_next_transaction,
    "any coordinator believed": a_deposed_coordinator_is_asked_for_a_commit,
    "marker from a cached leader": a_taker_knows_the_deposed_leader_of_the_markers,
    "marker read without a barrier": a_deposed_leader_is_asked_for_a_marker,
    "barrier not compared": a_deposed_leader_has_another_record_where_the_barrier_is,
    "floor not raised at take-over": a_cancel_comes_before_the_new_owner_s_frontier,
    "floor not raised at release": a_late_send_of_an_owner_that_has_released,
    "taken without the fence": a_refused_owner_goes_on_after_its_successor_s_init,
    "fence after init": a_refused_owner_goes_on_while_its_successor_takes_over,
    "fence after the marker": a_refused_owner_goes_on_while_its_successor_takes_over,
    "taker not checked at take-over": a_taker_is_fenced_and_swept_before_it_owns_anything,
    "acknowledged rows forgotten at the end": an_incarnation_ends_before_what_was_acknowledged_is_cleaned_up,
    "prefix up to now": a_schedule_is_created_just_before_a_row_that_waits,
    "wake-up leaves the prefix": a_schedule_is_created_within_the_blocked_prefix,
    "wake-up opens the prefix between passes": a_schedule_is_created_within_the_prefix_while_a_pass_reads_behind_it,
    "cancel goes on with the next schedule of its key": a_cancel_s_answer_is_lost_and_its_key_used_again,
    "change made again over the next one": a_change_s_answer_is_lost_and_another_change_follows,
    "announced times forgotten": a_retry_mark_is_applied_after_its_row_was_fired,
    "waiting row's pointer never pushed": a_paused_schedule_s_pointer_expires,
    "key taken over on the version alone": a_key_is_used_again_after_its_pointer_was_deleted,
    "shard taken without a higher epoch": a_zombie_writes_a_retry_under_the_new_owner_s_delivery,
    "retry of another epoch believed": a_zombie_writes_a_retry_under_the_new_owner_s_delivery,
    "retry of at_least_once believed": a_zombie_sends_at_least_once_what_its_successor_was_refused,
    "one hold for all tries, repeated by the library": a_copy_of_a_hold_comes_after_the_owner_took_it_off,
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("broken", [False, True], ids=["as it is", "without the rule"])
def test_a_rule_is_needed_and_kept(name: str, broken: bool) -> None:
    mutation = next(mutation for mutation in RARE if mutation.name == name)
    with applied(mutation) if broken else nullcontext():
        script = SCRIPTS[name]()
        violations = script.play()
    assert bool(violations) is broken, violations or script.cluster.trace.text()


def test_each_rare_break_has_a_script() -> None:
    assert sorted(SCRIPTS) == sorted(mutation.name for mutation in RARE)
