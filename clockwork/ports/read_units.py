"""Read units: the cost of the reads that a request makes, as the store states it.

    DynamoDB      its read capacity units, from its answers
    PostgreSQL    a quarter of the rows that are read, at least of one: a read unit of DynamoDB is four small rows
    memory        nothing

A request that is to know its cost opens a meter; what it reads inside, in tasks of its own too, is charged to it. A metered
read shares no call with the reads of others: the one that sends the call would pay for all. There are few such reads, and
requests without a meter share as before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

ROWS_PER_UNIT: Final = 4


class ReadMeter:
    """The read units of one request."""

    def __init__(self) -> None:
        self.units = 0.0

    def charge(self, units: float) -> None:
        """Adds the cost of one call to the store."""
        self.units += units

    def charge_rows(self, rows: int) -> None:
        """Adds the cost of a statement that has read so many rows."""
        self.units += max(1, rows) / ROWS_PER_UNIT


_METER: Final[ContextVar[ReadMeter | None]] = ContextVar("read_meter", default=None)


def current_meter() -> ReadMeter | None:
    """The meter that this task's reads are charged to, if there is one."""
    return _METER.get()


@contextmanager
def metered() -> Iterator[ReadMeter]:
    """Charges the reads inside the block to a meter of their own."""
    meter = ReadMeter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)
