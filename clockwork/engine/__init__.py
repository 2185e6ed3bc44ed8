"""Decisions in motion: what is accepted, who fires it, and why every answer is true.

The story of a schedule, and the file that tells each part:

    intake      a create is one transaction: pointer and row, or neither
    cancel      hold, look, decide: the same four steps at every distance from the due time
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

One rule came on top of the checked model. **A producer that was built anew must prove its epoch.** After a refused
record aiokafka's producer is spent: its sequence numbers no longer match the broker's, so a new one is initialised
under the same transactional id. In the model an owner that aborts keeps its place; here, the second init would fence a
*newer* owner that took the shard while this one was busy with its refusal, and the rest of the old batch, read before
that, would be committed again: twice. So after every rebuild the shard's item is read, strongly, *after* the init, and
another epoch means `Fenced`. Why that suffices: an owner writes its epoch after its init and before its first commit. If
it had committed anything before our init, we read its epoch; if it has not, our init has fenced it (dispatch, `_rebuild`).
"""
