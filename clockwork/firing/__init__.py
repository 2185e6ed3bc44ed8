"""Firing: one process's work on the shards that it owns, from the assignment to the outcome of each row.

The story of a schedule, and the file that tells each part. First its requests (`requests`, `operations`):

    create       one transaction: pointer and row, or neither
    hold         hold, look, decide: how a request ends a pending row, at every distance from the due time
    cancel       one such end: the row is deleted
    reschedule   the other: another row comes in its place; "fire now" is a reschedule to now
    retry_failed a failed schedule is pending again: a create under its own key
    dead_letters (`operations`) or it is discarded: its dead letter needs nothing any more

Then its delivery (`firing`):

    context                the ports, clocks and settings of the process
    supervisor             one incarnation after another; in it, one shard loop for each shard that it owns
    incarnation            the incarnation's item: frontier, slots, recheck
    takeover               becoming the owner of shards: fence, settle, read markers, clean up, own
    lease                  what an incarnation remembers of a shard that it owns
    shard_loop             pass after pass, and the waits in between
    shard_pass             one pass over one shard: frontier, read, holds, hand over
    group_commit           exactly_once: Kafka transactions of all shards, in slots of two roles, with their markers
    deliver_acknowledged   at_least_once: lane by lane, each record acknowledged before the next
    settlement             successes, drops and refusals of both; which refusals cost an attempt
    dead_letters           the records of dead letters, and the choice of their topic
    destination_waits      destinations in back-off or over their rate limit
    cleanup                after the commit: the outcome first, then the row
    job_chains             what follows the row of a recurring job: armed between its outcome and its delete
    release                giving a shard up, so that its next owner needs to fence nothing
    sweep                  forgetting incarnations that ended long ago
    pause_watch            which clients and topics are paused, as this process knows

What each crash leaves behind, and what repairs it (T0 to T3: the steps of `takeover`; a *zombie* is an owner that was
fenced and has not noticed):

    before the commit                     the next owner's init aborts the transaction; the rows are there and fire
    after the commit, before the cleanup  the next owner reads the markers, cleans up, then takes the shards
    commit whose answer was lost          the slot heals in place: init, recheck, marker. Other rows go on
    between fence and T3                  the shards still name the fenced owner; the next taker begins at T1
    after T3                              nothing of the earlier owner is left in these shards
    after a hold                          the row fires at its time; its owner drops the hold
    between look and decide               the owner has dropped the hold, so the transaction's condition fails
    a zombie owner                        its frontier is refused by the flag, its commit by the broker; its late
                                          cleanup repeats what is true; its late retry mark has an old epoch, which
                                          no cancel believes

Why the fence is on the incarnation and not on the shard: one transaction then carries rows of all shards, the frontier is
one write for all of them, and a take-over fences an owner once, however many shards it had. The price: an owner that loses
one shard to a take-over loses all of them. So a planned hand-over releases, and fences nothing.

Two rules came on top of the checked models (docs/protocol.md). **An owner keeps to what it has announced about a waiting
row**, from before the retry mark is sent (`ShardLease.announced_not_before_ms`). **A slot that does not heal is replaced**
(`group_commit`).
"""
