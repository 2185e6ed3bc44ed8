"""The checker sees what is wrong with changes, with what is armed again, and with deadlines."""

from typing import Any

from tests.chaos.history import Content, ScheduleHistory, WantedChange
from tests.chaos.made_histories import DUE_MS, asked, broken, content, record, seen

OLD = content(data="old", delivery_id="1")
NEW = content(DUE_MS + 1_000, data="new", delivery_id="2")


def put(**wanted: Any) -> WantedChange:
    return WantedChange(kind="put", tries_ms=[6_000], **wanted)


def changed(
    wish: WantedChange, to: Content = NEW, *, delivered: Content | None = None, version: int = 2, **more: Any
) -> ScheduleHistory:
    """Created as OLD, changed by the wish as it was answered, and delivered."""
    one = asked(data="old", wishes=[wish], **more)
    one.seen += [
        seen("pending", at_ms=5_005, call="create", content=OLD),
        seen("pending", at_ms=6_000, call="put", content=to, version=version, wish=wish),
        seen("delivered", place=("t", 0, 0), content=delivered or to, version=version),
    ]
    return one


def test_a_changed_schedule_that_is_delivered_as_it_was_answered_is_acquitted() -> None:
    at_new = [record(of=NEW, at_ms=DUE_MS + 1_010)]
    assert broken([changed(put(due_ms=NEW.due_ms, data="new"))], at_new) == set()
    assert broken([changed(put(due_ms=NEW.due_ms, data="new", if_version=1))], at_new) == set()


def test_a_version_that_was_replaced_is_never_delivered() -> None:
    for guarantee in ("exactly_once", "at_least_once"):
        one = changed(put(due_ms=NEW.due_ms, data="new"), guarantee=guarantee)
        assert "delivered otherwise than answered" in broken([one], [record(of=OLD, at_ms=DUE_MS + 1_010)])
    twice = [record(of=NEW, at_ms=DUE_MS + 1_010), record(of=OLD, offset=1, at_ms=DUE_MS + 1_020)]
    one = changed(put(due_ms=NEW.due_ms, data="new"), guarantee="at_least_once")
    assert broken([one], twice) == {
        "delivered otherwise than answered",
        "duplicates (at_least_once) that nothing explains",
    }


def test_what_was_put_off_is_early_before_its_new_time() -> None:
    one = changed(put(due_ms=NEW.due_ms, data="new"))
    assert broken([one], [record(of=NEW, at_ms=NEW.due_ms - 1)]) == {"early"}


def test_a_put_is_answered_200_only_by_what_it_asked_for() -> None:
    other = content(NEW.due_ms, data="old", delivery_id="2")
    wish = put(due_ms=NEW.due_ms, data="new")
    untrue = {"answers to changes that are not true"}
    assert broken([changed(wish, other)], [record(of=other, at_ms=DUE_MS + 1_010)]) == untrue
    stranger = content(NEW.due_ms, data="of nobody", delivery_id="2")
    assert untrue <= broken([changed(put(due_ms=NEW.due_ms), stranger)], [record(of=stranger, at_ms=DUE_MS + 1_010)])


def test_a_version_has_one_content_and_a_request_that_made_it() -> None:
    untrue = "answers to changes that are not true"
    wish = put(due_ms=NEW.due_ms, data="new")
    at_new = [record(of=NEW, at_ms=DUE_MS + 1_010)]
    one = changed(wish)
    one.seen.append(seen("pending", at_ms=7_000, content=content(data="new", delivery_id="2"), version=2))
    assert untrue in broken([one], at_new)
    assert broken([changed(wish, version=3)], at_new) == {untrue}, "one request, two changes"


def test_if_match_changes_only_the_version_that_it_names_and_is_refused_only_for_another() -> None:
    untrue = "answers to changes that are not true"
    at_new = [record(of=NEW, at_ms=DUE_MS + 1_010)]
    assert broken([changed(put(due_ms=NEW.due_ms, data="new", if_version=0))], at_new) == {untrue}
    for if_version, wrong in ((1, True), (2, True), (3, False)):
        one = changed(put(due_ms=NEW.due_ms, data="new"))
        wish = put(due_ms=NEW.due_ms, if_version=if_version)
        one.seen.append(seen("pending", at_ms=7_000, call="put", status=412, content=NEW, version=2, wish=wish))
        assert (untrue in broken([one], at_new)) == wrong, if_version


def test_a_version_never_goes_back_and_nothing_follows_an_end() -> None:
    at_new = [record(of=NEW, at_ms=DUE_MS + 1_010)]
    one = changed(put(due_ms=NEW.due_ms, data="new"))
    one.seen.append(seen("pending", at_ms=7_000, content=OLD))
    assert broken([one], at_new) == {"states that went backwards"}
    one = changed(put(due_ms=NEW.due_ms, data="new"))
    one.seen.append(seen("cancelled", at_ms=5_500, content=OLD))
    assert "states that went backwards" in broken([one], at_new)


def test_a_conflict_tells_the_state_and_refuses_for_it() -> None:
    at_old = [record(of=OLD)]
    for call, reason, state, true in (
        ("put", "delivered", "delivered", True),
        ("put", "in_flight", "pending", True),
        ("put", "pending", "pending", False),
        ("put", "cancelled", "delivered", False),
        ("retry", "failed", "failed", False),
        ("cancel", "cancelled", "cancelled", False),
    ):
        one = asked(data="old", cancels=1)
        place = ("t", 0, 0) if state == "delivered" else None
        at_ms = 9_000 if state == "pending" else 20_000
        one.seen.append(seen(state, at_ms=at_ms, call=call, status=409, reason=reason, place=place, content=OLD))
        one.seen.append(seen("delivered", at_ms=21_000, place=("t", 0, 0), content=OLD))
        assert ("answers to changes that are not true" not in broken([one], at_old)) == true, (call, reason, state)


def fired(due_ms: int) -> ScheduleHistory:
    wish = WantedChange(kind="fire", tries_ms=[6_000])
    now = content(due_ms, data="old", delivery_id="2")
    return changed(wish, now, due_ms=DUE_MS)


def test_what_is_fired_is_due_when_that_was_asked_and_delivered_once_after_it() -> None:
    assert broken([fired(6_002)], [record(of=content(6_002, "old", delivery_id="2"), at_ms=6_010)]) == set()
    untrue = "answers to changes that are not true"
    before = content(5_900, "old", delivery_id="2")
    assert broken([fired(5_900)], [record(of=before, at_ms=6_010)]) == {untrue}
    not_now = content(DUE_MS, "old", delivery_id="2")
    assert broken([fired(DUE_MS)], [record(of=not_now)]) == {untrue}
    early = record(of=content(6_002, "old", delivery_id="2"), at_ms=6_001)
    assert broken([fired(6_002)], [early]) == {"early"}


def test_order_follows_where_the_last_version_stands() -> None:
    # Created long before the other one, and then moved to the very time of it: behind it.
    wish = put(due_ms=DUE_MS)
    moved = content(DUE_MS, data="old", delivery_id="2")
    other = asked("b", first_sent_ms=5_500, accepted_ms=5_510)
    other.seen.append(seen("delivered", place=("t", 0, 1), content=content()))

    def one(offset: int) -> ScheduleHistory:
        found = changed(wish, moved, due_ms=3_000)
        found.seen[0] = seen("pending", at_ms=5_005, call="create", content=content(3_000, "old", delivery_id="1"))
        found.seen[-1] = seen("delivered", place=("t", 0, offset), content=moved, version=2)
        return found

    assert broken([one(2), other], [record("b", offset=1), record(of=moved, offset=2)]) == set()
    assert broken([one(0), other], [record(of=moved, offset=0), record("b", offset=1)]) == {"out of order"}


def failed(because: str, *, at_ms: int = DUE_MS + 150, **more: Any) -> ScheduleHistory:
    one = asked(data="old", deadline_ms=100, **more)
    one.seen.append(seen("failed", content=OLD, failed_because=because, failed_at_ms=at_ms))
    return one


def test_what_is_late_is_dropped_or_buried_and_never_delivered() -> None:
    letter = [record(of=OLD)]
    assert broken([failed("expired", on_late="drop")]) == set()
    assert broken([failed("expired", on_late="dead_letter")], dead_letters=letter) == set()
    assert broken([failed("expired", on_late="dead_letter")]) == {"lost"}
    assert broken([failed("expired", on_late="drop")], letter) == {"ended otherwise, and delivered"}
    by_zombie = failed("expired", on_late="drop", guarantee="at_least_once")
    assert broken([by_zombie], letter) == set()


def test_nothing_expires_that_has_no_deadline_or_before_it() -> None:
    assert broken([failed("expired", on_late="drop", at_ms=DUE_MS + 99)]) == {"failed wrongly"}
    assert broken([failed("expired", on_late="drop", at_ms=DUE_MS + 99)], skew_ms=1) == set()
    assert broken([failed("expired")], dead_letters=[record(of=OLD)]) == {"failed wrongly"}
    assert broken([failed("attempts_exhausted")], dead_letters=[record(of=OLD)]) == {"failed wrongly"}


def test_what_should_have_been_dropped_is_not_delivered_long_after_its_deadline() -> None:
    one = asked(data="old", deadline_ms=100, on_late="drop")
    one.seen.append(seen("delivered", at_ms=60_000, place=("t", 0, 0), content=OLD))
    assert broken([one], [record(of=OLD, at_ms=DUE_MS + 15_100)]) == set()
    assert broken([one], [record(of=OLD, at_ms=DUE_MS + 15_101)]) == {"delivered after its deadline"}


def armed_again(**more: Any) -> ScheduleHistory:
    """Failed, armed again, delivered."""
    wish = WantedChange(kind="retry", tries_ms=[20_500])
    again = content(20_501, data="old", delivery_id="2")
    one = failed("expired", on_late="dead_letter", wishes=[wish], **more)
    one.seen += [
        seen("pending", at_ms=20_500, call="retry", content=again, version=2, wish=wish),
        seen("delivered", at_ms=21_000, place=("t", 0, 0), content=again, version=2),
    ]
    return one


def test_what_failed_and_was_armed_again_has_both_its_dead_letter_and_its_record() -> None:
    again = record(of=content(20_501, "old", delivery_id="2"), at_ms=20_600)
    assert broken([armed_again()], [again], dead_letters=[record(of=OLD)]) == set()
    assert broken([armed_again()], [again]) == {"lost"}
    twice = [record(of=OLD), record(of=OLD, offset=1)]
    assert broken([armed_again()], [again], dead_letters=twice) == {"duplicates (exactly_once)"}
    assert "delivered otherwise than answered" in broken([armed_again()], [record(of=OLD)], dead_letters=twice[:1])


def test_what_a_zombie_sent_of_at_least_once_is_judged_as_the_version_that_it_was() -> None:
    # Said to be late, armed again; and its first send, which had no answer, is there: early only for its second time.
    old = record(of=OLD, at_ms=DUE_MS + 100)
    again = record(of=content(20_501, "old", delivery_id="2"), at_ms=20_600, offset=1)
    letters = [record(of=OLD)]
    one = armed_again(guarantee="at_least_once")
    one.seen[-1] = seen("delivered", at_ms=21_000, place=("t", 0, 1), content=one.seen[-1].content, version=2)
    assert broken([one], [old, again], dead_letters=letters, unrest=[(DUE_MS, 21_000)]) == set()
    one.seen[-1] = seen("cancelled", at_ms=21_000, content=one.seen[-1].content, version=2)
    one.cancels = 1
    assert broken([one], [old], dead_letters=letters) == set()
    assert broken([one], [record(of=OLD, at_ms=DUE_MS - 1)], dead_letters=letters) == {"early"}
    stranger = record(of=content(DUE_MS, "old", delivery_id="3"), at_ms=30_000)
    assert broken([one], [stranger], dead_letters=letters) == {"delivered otherwise than answered"}


def test_each_version_has_one_outcome() -> None:
    one = changed(put(due_ms=NEW.due_ms, data="new"))
    at_new = [record(of=NEW, at_ms=DUE_MS + 1_010)]
    for stored in (["delivered"], ["superseded", "superseded", "delivered"], ["failed", "delivered"], ["superseded"]):
        assert broken([one], at_new, outcomes={"a": stored}) == {"stored otherwise than answered"}, stored
