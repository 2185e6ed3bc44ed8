"""Decisions in motion: what is accepted, who fires it, and why every answer is true.

The story of a schedule, and the file that tells each part:

    intake      a create is one transaction: pointer and row, or neither
    hold        hold, look, decide: how a request ends a pending row, at every distance from the due time
    cancel      its one ending: the row goes
    reschedule  its other ending: another row comes in its place; "fire now" is a reschedule to now
    rearm       what failed gets another chance: a create under its own key
    discard     or it needs none: its dead letter asks for nothing any more
    takeover    becoming the owner of a shard: fence, epoch, marker
    dispatch    one pass over one shard: frontier, read, holds, deliver
    tidy        after the commit: outcome first, then the row
    shard_loop  pass after pass, and the waits in between
    supervisor  one loop per owned shard of this node

What each crash leaves behind, and who repairs it:

    before the commit                  the next owner's init aborts the transaction; the rows are there and fire
    after the commit, before the tidy  take-over reads the marker, tidies up, fires nothing
    commit answered to nobody          the same: `DeliveryUnknown` always leads to take-over
    after a hold                       the row fires at its time; whoever reads it takes the hold off
    between look and decide            the owner took the hold off, so the transaction's condition fails
    a zombie owner                     its frontier is refused by the epoch, its commit by the broker; its late tidy-up
                                       repeats what is true; its late `retry` bears an old epoch that no cancel believes

Two rules came on top of the checked model.

**A producer that was built anew raises the epoch.** After a refusal inside a transaction the producer is spent, and a new
one is initialised under the same transactional id. In the model an owner that aborts keeps its place; here, the second
init fences a *newer* owner that took the shard while this one was busy with its refusal, and the rest of the old batch,
read before that, would be committed again: twice. Reading the epoch after the init is not enough either: the newer owner
may raise it just after, tell a cancel (by a `retry` of its epoch) that a row waits, and this one, whose producer is the
newest, commits that row. So the rebuilt producer is used only after `epoch + 1 IF epoch = mine`: whoever holds the newest
producer *and* the stored epoch is one and the same (`Takeover.renew`).

**What an owner has said about a waiting row, it keeps to**, from before the `retry` is sent:
`ShardLease.announced_not_before_ms`.
"""
