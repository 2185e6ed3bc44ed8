"""Where a command stands in the commands topic, and how a repeated one is recognised.

Commands are read at least once: a node that dies has had effects whose offsets were not committed, and a node that was
paused past its session goes on with commands that another one has carried out since. So every pointer bears the place of
the last command that had an effect under its key, written in the transaction of that very effect, and kept by whatever
else writes the pointer, over HTTP too. A command whose place is not behind that one has had its effect, or a later one
of its client has: nothing is done any more. That holds for every key alone, needs no order between keys, and costs a
read only where the pointer was read anyway.

What it is for, with commands 1, 2, 3 under one key, all carried out, and then read again:

    1 create A, 2 cancel, 3 create B    1 would bring A back once B has ended; 2 would cancel B
    1 create A, 2 move to noon, 3 move to nine    2 would move it back to noon until 3 is read again
    1 create A, 2 cancel, then a create B over HTTP    2 would cancel B: therefore HTTP keeps the place, and a cancel by
                                                       command writes it though it moves nothing

What it is not: a memory of commands without an effect (404, 409, 412). Such a one may have its one effect when it is read
again; it is no second one. Hardly anybody can have been told otherwise: answers go out only after it is written down that
the effects are over (`api.command_work`), and who reads the command after that carries out nothing.

**What is open.** A node that read it before that, was frozen past its session, and wakes up does not know. It carries the
command out if there is something to do by now: a cancel that another node has answered with 404 then cancels what was
created over HTTP since. (`make sim SEED=30183`: a move that was refused, and made later.) What would close it: before
answers go out, note the place of a command without an effect as well, in its key's pointer, or in a pointer to nothing where
there is none; and let every write of a pointer depend on the place that its writer has read. Asking for the last heartbeat
before each effect would only make the gap smaller: a node can be frozen between the question and the write.

**A topic that was made anew** counts its offsets from zero. The broker's time of a record tells it from the old one: it
is later than all that the old one had (`message.timestamp.type` is `LogAppendTime`, which is checked at the start). The
highest time so far is kept, so that a broker whose clock was set back makes no command look old. After a change of the
number of Kafka partitions a client's commands may stand in another one: places there cannot be compared, and count as
new, so such a change wants the topic read to its end first.
"""

import re
from dataclasses import dataclass, replace
from typing import Final, Self

_TEXT: Final = re.compile(r"(\d{1,10})\.(\d{1,19})\.(\d{1,19})")


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandPlace:
    """Of one command; stored in the pointer that it wrote."""

    kafka_partition: int
    offset: int
    at_ms: int
    """The broker's time; of a stored one, the highest so far."""

    def is_over(self, last: "CommandPlace | None") -> bool:
        """Whether, by the last effect under its key, this command's time is over."""
        return (
            last is not None
            and self.kafka_partition == last.kafka_partition
            and self.offset <= last.offset
            and self.at_ms <= last.at_ms
        )

    def after(self, last: "CommandPlace | None") -> "CommandPlace":
        """What to store when this one has its effect."""
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
