"""The index `byClient` of `scheduleKeys`: what a client's list of schedules is read from.

What is indexed: the pointers, and nothing else. There is one per key, it names the present schedule, and it is written
when a schedule is created or moved. So a list is one of present states by itself (outcomes, old ones under a key that is
used again included, have no `listedUnder` and are not in it), and firing, cancelling and tidying up write nothing more
than before: the index costs one write unit per create (two for a key that is used again, and for a move: the old entry
goes), against six that a schedule costs without it. A status is not in the index, because the end of a schedule does not
touch its pointer; it is read, strongly, from rows and outcomes.

Rejected: an index of the rows (it would be written again at each end, and knows nothing of what has ended); one of
rows and outcomes (three writes a schedule, two entries for a schedule that is being tidied up, one more to tell which of
a key's outcomes is its present state); a status kept in the pointer (one more conditional write for each delivery, in the
path that every delivery waits for).

Its keys: `listedUnder` is client and bucket, `current` the position, so each bucket is in the order of due times. Buckets,
because DynamoDB takes 1,000 write units a second under one partition key, and an index that cannot follow holds up the
writes to its table: one busy client would be held at 1,000 creates a second. With eight it is 8,000, for eight Queries a
page instead of one. All attributes are projected: a pointer has some 300 bytes, below the 1 KB of a write unit.
"""

import zlib
from typing import Final

from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.stores.dynamodb.attributes import Attribute

INDEX: Final = "byClient"
LISTED_UNDER: Final = "listedUnder"
"""Of a pointer: the DynamoDB partition key of the index. Written whether there is an index or not, so that one which is
made later has everything in it."""
INDEX_KEY: Final = ((LISTED_UNDER, "S"), ("current", "N"))
LIST_BUCKETS: Final = 8
"""Of one client. Stored with every pointer, so it can only be changed by reading both numbers for a while."""


def bucket_of(schedule_key: ScheduleKey) -> int:
    """Which of its client's buckets a key is in."""
    return zlib.crc32(schedule_key.encode()) % LIST_BUCKETS


def list_key(client_id: ClientId, bucket: int) -> Attribute:
    """The DynamoDB partition key of one bucket of a client. A client id has no "/"."""
    return {"S": f"{client_id}/{bucket}"}
