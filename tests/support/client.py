"""A client of the HTTP interface, as thin as it can be: what was answered is what tests are about."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp

REQUEST_S_MAX: Final = 60.0
"""Longer than a node's own deadline, so that its 503 is seen."""
PATIENCE_S: Final = 60.0
"""For how long a 503 is followed by the same request again, which is what the interface asks of its clients. A busy machine
stands still for seconds, and so do Kafka and DynamoDB on it; a test that is about something else must not hear of it."""
AGAIN_S: Final = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """An answer."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def reason(self) -> str | None:
        """The reason of a 409."""
        found = self.body.get("reason")
        return str(found) if found is not None else None


class Client:
    """Talks to one node."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url
        self.request_s_max = REQUEST_S_MAX
        self.patience_s = PATIENCE_S

    @property
    def impatient(self) -> "Client":
        """For whom a 503 is an answer."""
        other = Client(self._session, self.url)
        other.request_s_max, other.patience_s = self.request_s_max, 0.0
        return other

    async def create(self, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answered:
        return await self._ask("POST", "/schedule", json=body, headers=headers)

    async def get(self, client_id: str, schedule_key: str) -> Answered:
        return await self._ask("GET", _path(client_id, schedule_key))

    async def cancel(self, client_id: str, schedule_key: str) -> Answered:
        return await self._ask("DELETE", _path(client_id, schedule_key))

    async def create_many(self, bodies: Sequence[Any]) -> Answered:
        return await self._ask("POST", "/schedules", json={"schedules": bodies})

    async def cancel_many(self, client_id: str, schedule_keys: Iterable[str]) -> Answered:
        keys = [{"clientId": client_id, "scheduleKey": key} for key in schedule_keys]
        return await self._ask("POST", "/schedules/cancel", json={"schedules": keys})

    async def page(self, client_id: str, **filters: Any) -> Answered:
        """One page of a list; a filter that is None is left out."""
        given = {name: str(value) for name, value in filters.items() if value is not None}
        return await self._ask("GET", "/schedules", params={"clientId": client_id, **given})

    async def listed(self, client_id: str, **filters: Any) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            answered = await self.page(client_id, cursor=cursor, **filters)
            assert answered.status == 200, answered
            found += answered.body["schedules"]
            cursor = answered.body["cursor"]
            if cursor is None:
                return found

    async def history(self, client_id: str, schedule_key: str) -> Answered:
        return await self._ask("GET", f"{_path(client_id, schedule_key)}/history")

    async def put(
        self, client_id: str, schedule_key: str, body: Mapping[str, Any], *, if_match: str | None = None
    ) -> Answered:
        headers = {"If-Match": if_match} if if_match is not None else None
        return await self._ask("PUT", _path(client_id, schedule_key), json=body, headers=headers)

    async def fire(self, client_id: str, schedule_key: str) -> Answered:
        return await self._ask("POST", f"{_path(client_id, schedule_key)}/fire")

    async def retry(self, client_id: str, schedule_key: str, body: Mapping[str, Any] | None = None) -> Answered:
        return await self._ask("POST", f"{_path(client_id, schedule_key)}/retry", json=body)

    async def create_job(self, body: Mapping[str, Any]) -> Answered:
        return await self._ask("POST", "/jobs", json=body)

    async def job(self, client_id: str, job_id: str, call: str = "") -> Answered:
        """Reads a job; `call`: what is asked of it, `/logs`."""
        return await self._ask("GET", f"{_job_path(client_id, job_id)}{call}")

    async def pause_job(self, client_id: str, job_id: str) -> Answered:
        return await self._ask("POST", f"{_job_path(client_id, job_id)}/pause", json={})

    async def put_job(self, client_id: str, job_id: str, body: Mapping[str, Any]) -> Answered:
        return await self._ask("PUT", _job_path(client_id, job_id), json=body)

    async def delete_job(self, client_id: str, job_id: str) -> Answered:
        return await self._ask("DELETE", _job_path(client_id, job_id))

    async def do_to_job(
        self, client_id: str, job_id: str, call: str, body: Mapping[str, Any] | None = None
    ) -> Answered:
        """`call`: `resume`, `run-now`, `runs/s1795248000000/fail`."""
        return await self._ask("POST", f"{_job_path(client_id, job_id)}/{call}", json=body)

    async def complete_run(self, client_id: str, job_id: str, run_id: str) -> Answered:
        return await self._ask("POST", f"{_job_path(client_id, job_id)}/runs/{run_id}/complete", json={})

    async def calendar(self, method: str, client_id: str, name: str, **more: Any) -> Answered:
        return await self._ask(method, f"/calendars/{client_id}/{name}", **more)

    async def shards(self) -> list[dict[str, Any]]:
        """All shards, by their numbers."""
        answered = await self._ask("GET", "/admin/shards", headers={"Cache-Control": "no-cache"})
        assert answered.status == 200, answered
        found: list[dict[str, Any]] = answered.body["shards"]
        return found

    async def livez(self) -> Answered:
        return await self._ask_once("GET", "/livez")

    async def readyz(self) -> Answered:
        return await self._ask_once("GET", "/readyz")

    async def metrics(self) -> str:
        async with self._session.get(f"{self.url}/metrics") as response:
            return await response.text()

    async def _ask(self, method: str, path: str, **more: Any) -> Answered:
        """Raises: what `NO_ANSWER` names."""
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + self.patience_s
        while True:
            answered = await self._ask_once(method, path, **more)
            if answered.status != 503 or loop.time() >= ends_at_s:
                return answered
            await asyncio.sleep(AGAIN_S)

    async def _ask_once(self, method: str, path: str, **more: Any) -> Answered:
        timeout = aiohttp.ClientTimeout(total=self.request_s_max)
        async with self._session.request(method, f"{self.url}{path}", timeout=timeout, **more) as response:
            return Answered(
                status=response.status, body=await response.json(content_type=None), headers=response.headers
            )


NO_ANSWER: Final = (aiohttp.ClientError, asyncio.TimeoutError)
"""It is not known whether the request was carried out."""


def _job_path(client_id: str, job_id: str) -> str:
    return f"/jobs/{client_id}/{quote(job_id, safe='')}"


def _path(client_id: str, schedule_key: str) -> str:
    return f"/schedule/{client_id}/{quote(schedule_key, safe='')}"
