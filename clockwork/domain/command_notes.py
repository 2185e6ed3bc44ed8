"""Command notes: how each command of the commands topic has its effect at most once, however often it is read.

Commands are read at least once: a node that dies has had effects whose offsets were not committed, and a node that
was paused past its session goes on with commands that another node has processed since. So every key has a *note* of
the last command that was processed. A command has its effect in a transaction that moves the note from what its node
has read to the command's own offset; a command without effect (404, 409, 412, a dead letter) is recorded as processed
by moving the note alone, before the answer is sent. The note moves past a command once, so the command has one effect
or none, and a caller may build on the answer. A command whose offset is not behind the note was processed, and
nothing is done any more.

Commands 1, 2, 3 under one key, all processed and then read again, would otherwise do this:

    1 create A, 2 cancel, 3 create B              1 brings A back once B has ended; 2 cancels B
    1 create A, 2 move to noon, 3 move to nine    2 moves it back to noon until 3 is read again
    1 create A, 2 cancel, then a create B by HTTP 2 cancels B

And with command 1 = cancel and two nodes: the first node reads it and is frozen; the second answers it with 404, upon
which its caller creates A over HTTP. The first node wakes up and finds A to cancel, at any step: before it reads the
note, which says that 1 was processed, or after it, when its transaction finds another note than the one it has read.

The note is an item of its own beside the key's pointer, and not in the pointer: requests over HTTP write pointers
too, and a write that had read an older pointer would take the note back. So only commands pay for commands, with one
item more in their transaction and one more read. Rejected: asking Kafka for the last heartbeat before each effect,
since a node can be frozen between the question and the write.

A note is kept for the retention after the later of its last command and the due time which that command set. It is
needed as long as a node may be frozen and go on, or offsets may be set back.

A client's commands are in one Kafka partition if all its producers partition its key alike. If they do not, their
order between Kafka partitions is undefined, but each command still has its effect once: a note has an offset for each
Kafka partition.

**A topic that was made anew** counts its offsets from zero. The broker's time of a record tells it from the old
topic's records: it is later than all of theirs (`message.timestamp.type` is `LogAppendTime`, which is checked at the
start). The highest time so far is kept, so that a broker whose clock was set back makes no command look old. After a
change of the number of Kafka partitions a client's commands may be in another one, before those that it wrote
earlier: read the topic to its end before such a change.
"""

import re
from dataclasses import dataclass, replace
from typing import Final, Self

_TEXT: Final = re.compile(r"(\d{1,10})\.(\d{1,19})\.(\d{1,19})", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandOffset:
    """Offset of one command in the commands topic, with the broker's time of its record."""

    kafka_partition: int
    offset: int
    at_ms: int
    """The broker's time; in a note, the highest so far."""

    def is_processed(self, last: "CommandOffset | None") -> bool:
        """True if the command at this offset was processed, by the offset `last` in the note of its key."""
        return (
            last is not None
            and self.kafka_partition == last.kafka_partition
            and self.offset <= last.offset
            and self.at_ms <= last.at_ms
        )

    def after(self, last: "CommandOffset | None") -> "CommandOffset":
        """The offset to note when the command at this one is processed."""
        if last is None or last.kafka_partition != self.kafka_partition:
            return self
        return replace(self, at_ms=max(self.at_ms, last.at_ms))

    def __str__(self) -> str:
        return f"{self.kafka_partition}.{self.offset}.{self.at_ms}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises: ValueError."""
        form = _TEXT.fullmatch(text)
        if form is None:
            raise ValueError("should be Kafka partition, offset and time, with dots between")
        kafka_partition, offset, at_ms = (int(number) for number in form.groups())
        return cls(kafka_partition=kafka_partition, offset=offset, at_ms=at_ms)


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandNote:
    """The last processed commands under one key."""

    offsets: tuple[CommandOffset, ...]
    """Offsets of the last processed commands, one for each Kafka partition."""
    by: str
    """Id of the write of this note: a caller whose answer was lost recognises its own write."""
    expires_at_s: int
    """TTL, in epoch seconds."""

    def covers(self, at: CommandOffset) -> bool:
        """True if the command at this offset was processed."""
        return any(at.is_processed(last) for last in self.offsets)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoteChange:
    """One command's move of its key's note, on condition of the note that was read."""

    before: tuple[CommandOffset, ...]
    """The offsets as they were read; empty: there was no note."""
    after: CommandNote


def note_change(note: CommandNote | None, at: CommandOffset, *, by: str, expires_at_s: int) -> NoteChange:
    """The change that moves a note past a command, and keeps it at least until `expires_at_s`."""
    before = note.offsets if note is not None else ()
    last = {each.kafka_partition: each for each in before}
    last[at.kafka_partition] = at.after(last.get(at.kafka_partition))
    kept_until_s = max(expires_at_s, note.expires_at_s) if note is not None else expires_at_s
    offsets = tuple(last[number] for number in sorted(last))
    return NoteChange(before=before, after=CommandNote(offsets=offsets, by=by, expires_at_s=kept_until_s))


def text_of_offsets(offsets: tuple[CommandOffset, ...]) -> str:
    """The stored form of a note's offsets."""
    return " ".join(map(str, offsets))


def offsets_of_text(text: str) -> tuple[CommandOffset, ...]:
    """Reads the stored form. Raises: ValueError; also for another spelling of the same offsets, which no condition
    would find."""
    offsets = tuple(CommandOffset.parse(part) for part in text.split(" "))
    if text_of_offsets(offsets) != text:
        raise ValueError("should be spelled as it is written")
    return offsets
