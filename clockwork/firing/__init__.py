"""Firing: one node's work on the shards that it owns, from the assignment to the outcome of each row.

The story of a schedule, and the file that tells each part. First its requests (`requests`, `operations`):

    create       one transaction: pointer and row, or neither
    hold         hold, look, decide: how a request ends a pending row, at every distance from the due time
    cancel       one such end: the row is deleted
    reschedule   the other: another row comes in its place; "fire now" is a reschedule to now
    retry_failed a failed schedule is pending again: a create under its own key
    dead_letters or it is discarded (`operations`): its dead letter needs nothing any more

Then its delivery (`firing`):

    supervisor             one shard loop for each shard that is assigned to this node
    shard_loop             take-over, pass after pass, and the waits in between
    takeover               becoming the owner of a shard: fence, epoch, marker; the `ShardLease`
    shard_pass             one pass over one shard: frontier, read, holds, deliver
    deliver_transactional  exactly_once: one Kafka transaction with its marker
    deliver_acknowledged   at_least_once: lane by lane, each record acknowledged before the next
    settlement             successes, drops and refusals of both; which refusals cost an attempt
    dead_letters           the records of dead letters, and the choice of their topic
    destination_waits      destinations in back-off or over their rate limit
    cleanup                after the commit: the outcome first, then the row
    pause_watch            which clients and topics are paused, as this node knows

What each crash leaves behind, and who repairs it:

    before the commit                     the next owner's init aborts the transaction; the rows are there and fire
    after the commit, before the cleanup  the next owner reads the marker, cleans up, fires none of these rows
    commit whose answer was lost          the same: `DeliveryUnknown` always leads to take-over
    after a hold                          the row fires at its time; its owner drops the hold
    between look and decide               the owner has dropped the hold, so the transaction's condition fails
    a zombie owner                        its frontier is refused by the epoch, its commit by the broker; its late
                                          cleanup repeats what is true; its late retry mark has an old epoch, which
                                          no cancel believes

Two rules came on top of the checked model.

**A producer that was built anew raises the epoch.** After a refusal inside a transaction the producer is spent, and a
new one is initialised under the same transactional id. In the model an owner that aborts keeps its shard; here, the
second init fences a *newer* owner that took the shard while this one was busy with its refusal, and the rest of the
old batch, read before that, would be committed again: twice. Reading the epoch after the init is not enough either:
the newer owner may raise it just after, announce to a cancel (by a retry mark of its epoch) that a row waits, and
this one, whose producer is the newest, commits that row. So the rebuilt producer is used only after `epoch + 1 IF
epoch = mine`: the owner with the newest producer *and* the owner with the stored epoch are then one and the same
(`Takeover.renew`).

**An owner keeps to what it has announced about a waiting row**, from before the retry mark is sent:
`ShardLease.announced_not_before_ms`.
"""
