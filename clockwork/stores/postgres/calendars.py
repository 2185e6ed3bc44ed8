"""`CalendarStore` on PostgreSQL."""

from collections.abc import Sequence

from asyncpg import Record

from clockwork.domain.jobs.calendar import Calendar, CalendarName
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId
from clockwork.errors import ConditionFailed
from clockwork.ports.jobs import NamePage
from clockwork.stores.checks import readable
from clockwork.stores.postgres import job_codec
from clockwork.stores.postgres.client import PostgresClient
from clockwork.stores.postgres.job_statements import JobStatements
from clockwork.stores.postgres.sharing import READS_MAX, SharedReads, prove, retry_on_conflict


class PostgresCalendars:
    """See `CalendarStore`."""

    def __init__(self, client: PostgresClient, sql: JobStatements) -> None:
        self._client = client
        self._sql = sql
        self._calendars = SharedReads[tuple[str, str]](client, "read_calendar", sql.read_calendars, READS_MAX)

    async def read_calendar(self, key: CalendarName) -> Calendar | None:
        """See `CalendarStore`."""
        found = await self._calendars.get((key.client_id, key.name))
        return job_codec.calendar_of(found) if found is not None else None

    async def put_calendar(self, calendar: Calendar, *, before: Calendar | None) -> None:
        """See `CalendarStore`."""
        values = job_codec.calendar_values(calendar)
        condition = (before.write_id,) if before is not None else ()
        sql = self._sql.put_calendar[before is not None]
        if await retry_on_conflict(self._client, "put_calendar", sql, *values, *condition):
            return
        if await self._stands(calendar.key) != calendar:  # or put by an earlier copy
            raise ConditionFailed

    async def delete_calendar(self, calendar: Calendar) -> None:
        """See `CalendarStore`."""
        values = (*calendar.key, calendar.write_id)
        if await retry_on_conflict(self._client, "delete_calendar", self._sql.delete_calendar, *values):
            return
        if await self._stands(calendar.key) is not None:
            raise ConditionFailed

    async def list_calendars(self, client_id: ClientId, *, after: str | None, calendars_max: int) -> Sequence[Calendar]:
        """See `CalendarStore`."""
        values = (client_id, after or "", calendars_max)
        found = await self._client.read("list_calendars", self._sql.list_calendars, *values)
        return readable(job_codec.calendar_of, found)

    async def list_jobs_of_calendar(self, key: CalendarName, *, after: JobId | None, jobs_max: int) -> NamePage:
        """See `CalendarStore`."""
        behind = after.encode() if after is not None else b""
        # One more than asked for: it tells that there is more.
        values = (*key, behind, jobs_max + 1)
        found = await self._client.read("list_jobs_of_calendar", self._sql.list_jobs_of_calendar, *values)
        return names_page(found, jobs_max)

    async def _stands(self, key: CalendarName) -> Calendar | None:
        found = await prove(self._client, "prove_calendar", self._sql.prove_calendar, *key)
        return job_codec.calendar_of(found[0]) if found else None


def names_page(found: Sequence[Record], jobs_max: int) -> NamePage:
    """A page of names, of which one more was asked for."""
    page = found[:jobs_max]
    names = readable(lambda record: job_codec.name_of(record[0], record[1]), page)
    more = len(found) > len(page)
    return NamePage(names=tuple(names), next_after=job_codec.name_of(*page[-1]) if more else None)
