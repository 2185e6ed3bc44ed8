"""Where a command stands in the commands topic, and how each has its effect at most once.

Commands are read at least once: a node that dies has had effects whose offsets were not committed, and a node that was
paused past its session goes on with commands that another one has settled since. So every key has a note of the last
command that is over. A command has its effect in a transaction that moves the note from what its node has read to the
command's own place; and one that had none (404, 409, 412, a dead letter) moves the note alone, before anybody is told.
The note moves past a command once, so it has one effect or none, and whoever was told which may build on it. A command
whose place is not behind the note is over, and nothing is done any more.

What it is for, with commands 1, 2, 3 under one key, all carried out, and then read again:

    1 create A, 2 cancel, 3 create B    1 would bring A back once B has ended; 2 would cancel B
    1 create A, 2 move to noon, 3 move to nine    2 would move it back to noon until 3 is read again
    1 create A, 2 cancel, then a create B over HTTP    2 would cancel B

And with 1 cancel, 2 nodes: the first reads it and is frozen; the second answers it with 404, and is believed: somebody
creates A over HTTP. The first wakes up and finds A to cancel, at any step: before it reads the note, which says that 1 is
over, or after it, when its transaction finds another note than it has read.

The note is an item of its own, beside the key's pointer, and not in it: requests over HTTP write pointers too, and a
write that had read an older one would take the note back; here only commands pay for commands, with one item more in
their transaction and one more read. Asking Kafka for the last heartbeat before each effect was left out: a node can be
frozen between the question and the write.

A note is kept as long as the pointer that was written with it, else for the retention. It is needed for as long as a node
may be frozen and go on, or offsets may be set back.

A client's commands stand in one Kafka partition, if all its producers place its key alike; if they do not, the order
between Kafka partitions is nobody's, but each command still has its effect once: a note has a place for each of them.

**A topic that was made anew** counts its offsets from zero. The broker's time of a record tells it from the old one: it
is later than all that the old one had (`message.timestamp.type` is `LogAppendTime`, which is checked at the start). The
highest time so far is kept, so that a broker whose clock was set back makes no command look old. After a change of the
number of Kafka partitions a client's commands may stand in another one, before those that it wrote earlier: such a change
wants the topic read to its end first.
"""

import re
from dataclasses import dataclass, replace
from typing import Final, Self

_TEXT: Final = re.compile(r"(\d{1,10})\.(\d{1,19})\.(\d{1,19})", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandOffset:
    """Of one command."""

    kafka_partition: int
    offset: int
    at_ms: int
    """The broker's time; of a stored one, the highest so far."""

    def is_processed(self, last: "CommandOffset | None") -> bool:
        """Whether, by the note of its key, this command's time is over."""
        return (
            last is not None
            and self.kafka_partition == last.kafka_partition
            and self.offset <= last.offset
            and self.at_ms <= last.at_ms
        )

    def after(self, last: "CommandOffset | None") -> "CommandOffset":
        """What to note when this one is over."""
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
    """What a key remembers of commands."""

    offsets: tuple[CommandOffset, ...]
    """Of the last ones that are over, one for each Kafka partition."""
    by: str
    """Names the write that put it here, so that whoever was not answered knows its own."""
    expires_at_s: int
    """TTL, in epoch seconds."""

    def covers(self, place: CommandOffset) -> bool:
        """Whether the command that stands there is over."""
        return any(place.is_processed(last) for last in self.offsets)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoteChange:
    """One command's move of its key's note: whoever has read another one is refused."""

    before: tuple[CommandOffset, ...]
    """The places as they were read; empty: there was no note."""
    after: CommandNote


def note_change(note: CommandNote | None, place: CommandOffset, *, by: str, expires_at_s: int) -> NoteChange:
    """What moves a note past a command, and keeps it at least until then."""
    before = note.offsets if note is not None else ()
    last = {each.kafka_partition: each for each in before}
    last[place.kafka_partition] = place.after(last.get(place.kafka_partition))
    kept_until_s = max(expires_at_s, note.expires_at_s) if note is not None else expires_at_s
    places = tuple(last[number] for number in sorted(last))
    return NoteChange(before=before, after=CommandNote(offsets=places, by=by, expires_at_s=kept_until_s))


def text_of_offsets(places: tuple[CommandOffset, ...]) -> str:
    """As a note is stored."""
    return " ".join(map(str, places))


def offsets_of_text(text: str) -> tuple[CommandOffset, ...]:
    """Raises: ValueError; also for another spelling of the same places, which no condition would find."""
    places = tuple(CommandOffset.parse(part) for part in text.split(" "))
    if text_of_offsets(places) != text:
        raise ValueError("should be spelled as it is written")
    return places
