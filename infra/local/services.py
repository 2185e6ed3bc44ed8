"""Kafka, DynamoDB Local and PostgreSQL together, for tests, the demo and `make run`."""

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.local import dynamodb, kafka
from infra.local.dynamodb import DynamoDB
from infra.local.errors import LocalServicesError
from infra.local.jars import cache, ensure_jars
from infra.local.java import find_java
from infra.local.kafka import Kafka, SecureListener
from infra.local.node import Store
from infra.local.postgres import Postgres
from infra.local.service import JavaService, Service

logger = logging.getLogger("infra.local")


class LocalServices:
    """Kafka and DynamoDB Local, and PostgreSQL if it is asked for, for the length of a block.

    Opening returns when all answer, or raises a LocalServicesError and leaves nothing running. Closing ends them,
    as does the end of this process, however it ends. Without `data_dir` nothing is kept: DynamoDB's tables live
    in memory, the rest in a temporary folder. With it, the next start on that folder finds all that was there.
    Logs go to `log_dir`, else beside the data; those of a failed start are kept.

    To break things on purpose, each on its port and with its data: stop (in order), kill (as a power cut would) and
    pause (frozen, connections open). `start_kafka` and `start_postgres` return when it answers again. DynamoDB
    is only paused: its tables would not survive more.

    With `secure`, Kafka listens on a second port, with TLS and users. `kafka_settings` replace some of its usual ones.
    Without `dynamodb`, Kafka runs alone. PostgreSQL is started with the others (`postgres`), or later by `start_postgres`.
    """

    def __init__(
        self,
        *,
        data_dir: Path | str | None = None,
        kafka_port: int | None = None,
        dynamodb_port: int | None = None,
        log_dir: Path | str | None = None,
        secure: SecureListener | None = None,
        kafka_settings: Mapping[str, str] | None = None,
        dynamodb: bool = True,
        postgres: bool = False,
        postgres_port: int | None = None,
    ) -> None:
        self._data_dir = None if data_dir is None else Path(data_dir).absolute()
        self._given_log_dir = None if log_dir is None else Path(log_dir).absolute()
        self._kafka_port = kafka_port
        self._secure = secure
        self._kafka_settings = kafka_settings
        self._with_dynamodb = dynamodb
        self._dynamodb_port = dynamodb_port
        self._with_postgres = postgres
        self._postgres_port = postgres_port
        self._kafka: Kafka | None = None
        self._postgres: Postgres | None = None
        self._dynamodb: DynamoDB | None = None
        self._log_dir: Path | None = None
        self._scratch: Path | None = None

    async def __aenter__(self) -> Self:
        find_java()
        if self._data_dir is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="clockwork-local-"))
            if os.geteuid() == 0:
                # PostgreSQL runs as another user then, in a folder of this one.
                self._scratch.chmod(0o711)
        data = self._data_dir or self._scratch
        assert data is not None
        self._log_dir = self._given_log_dir or data / "logs"
        self._log_dir.mkdir(parents=True, exist_ok=True)
        self._kafka = Kafka(
            port=self._kafka_port,
            home=data / "kafka",
            log_path=self._log_dir / "kafka.log",
            scratch=self._scratch,
            secure=self._secure,
            settings=self._kafka_settings,
        )
        if self._with_dynamodb:
            self._dynamodb = DynamoDB(
                port=self._dynamodb_port,
                home=data / "dynamodb",
                log_path=self._log_dir / "dynamodb.log",
                scratch=self._scratch,
                in_memory=self._data_dir is None,
            )
        try:
            if self._with_postgres:
                self._postgres = self._new_postgres()
            await self._ensure_jars()
            await self._ensure_archives()
            with _first_error():
                async with asyncio.TaskGroup() as starting:
                    for service in self._services():
                        starting.create_task(service.start(), name=f"start {service.name}")
        except BaseException as error:
            # Our errors name a log.
            await self._close(keep_logs=isinstance(error, LocalServicesError))
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close(keep_logs=False)

    @property
    def kafka_brokers(self) -> str:
        return f"{kafka.HOST}:{self._opened_kafka().port}"

    @property
    def kafka_home(self) -> Path:
        """The folder of Kafka's configuration and data."""
        return self._opened_kafka().home

    @property
    def dynamodb_endpoint(self) -> str:
        return f"http://{dynamodb.HOST}:{self._opened_dynamodb().port}"

    def address_of(self, store: Store) -> str | None:
        """DynamoDB's endpoint, or the URL of the database; None for a store in memory."""
        match store:
            case "dynamodb":
                return self.dynamodb_endpoint
            case "postgresql":
                return self.postgres_url
            case "memory":
                return None

    @property
    def log_dir(self) -> Path:
        if self._log_dir is None:
            raise RuntimeError("the local services have no log folder before they are opened")
        return self._log_dir

    async def start_kafka(self) -> None:
        await self._opened_kafka().start()

    async def stop_kafka(self) -> None:
        await self._opened_kafka().stop()

    async def kill_kafka(self) -> None:
        await self._opened_kafka().kill()

    def pause_kafka(self) -> None:
        self._opened_kafka().pause()

    def resume_kafka(self) -> None:
        self._opened_kafka().resume()

    def pause_dynamodb(self) -> None:
        self._opened_dynamodb().pause()

    def resume_dynamodb(self) -> None:
        self._opened_dynamodb().resume()

    def pause_store(self, store: Store) -> None:
        """Freezes DynamoDB Local or PostgreSQL."""
        (self._opened_postgres() if store == "postgresql" else self._opened_dynamodb()).pause()

    def resume_store(self, store: Store) -> None:
        (self._opened_postgres() if store == "postgresql" else self._opened_dynamodb()).resume()

    @property
    def postgres_url(self) -> str:
        return self._opened_postgres().url

    async def start_postgres(self) -> None:
        """Starts it, unless it runs; for the first time if it was not asked for at the opening. Raises:
        LocalServicesError."""
        if self._postgres is None:
            self._opened_kafka()
            self._postgres = self._new_postgres()
            await self._ensure_jars()
        if not self._postgres.is_started:
            await self._postgres.start()

    async def stop_postgres(self) -> None:
        await self._opened_postgres().stop()

    async def kill_postgres(self) -> None:
        await self._opened_postgres().kill()

    def pause_postgres(self) -> None:
        self._opened_postgres().pause()

    def resume_postgres(self) -> None:
        self._opened_postgres().resume()

    async def until_one_dies(self) -> None:
        """Waits for ever, or raises the reason why one of the services ended by itself. Raises: LocalServicesError."""
        with _first_error():
            async with asyncio.TaskGroup() as watching:
                for service in self._services():
                    watching.create_task(service.raise_when_dead(), name=f"watch {service.name}")

    async def _close(self, *, keep_logs: bool) -> None:
        async with asyncio.TaskGroup() as closing:
            for service in self._services():
                # Data in a temporary folder is not read again, and needs no orderly end.
                end = service.kill() if self._scratch else service.stop()
                closing.create_task(end, name=f"end {service.name}")
        self._kafka = self._dynamodb = self._postgres = None
        if self._scratch is not None:
            _remove(self._scratch, spare=self._log_dir if keep_logs else None)

    def _new_postgres(self) -> Postgres:
        data = self._data_dir or self._scratch
        assert data is not None
        return Postgres(
            port=self._postgres_port,
            home=data / "postgres",
            log_path=self.log_dir / "postgres.log",
            scratch=self._scratch,
        )

    async def _ensure_jars(self) -> None:
        bundles = [bundle for service in self._services() if (bundle := service.bundle) is not None]
        await ensure_jars(bundles, self.log_dir / "jars.log", self._scratch)

    async def _ensure_archives(self) -> None:
        """Records the ahead-of-time caches that are missing: at the first start with these jars and this Java."""
        java = [service for service in self._services() if isinstance(service, JavaService)]
        archived = [service for service in java if service.bundle.archived]
        missing = [service for service in archived if not service.bundle.archive.exists()]
        if not missing:
            return
        logger.info(
            "preparing quick starts of %s, once (some ten seconds)", " and ".join(service.name for service in missing)
        )
        # Beside the caches, so that a file is put in place by renaming it; removed even if this process is killed.
        folder = Path(tempfile.mkdtemp(prefix="recording-", dir=cache()))
        try:
            with _first_error():
                async with asyncio.TaskGroup() as recording:
                    for service in missing:
                        recording.create_task(service.recorder(folder).record(), name=f"record {service.name}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _services(self) -> list[Service]:
        return [service for service in (self._kafka, self._dynamodb, self._postgres) if service is not None]

    def _opened_kafka(self) -> Kafka:
        if self._kafka is None:
            raise RuntimeError("the local services are not open")
        return self._kafka

    def _opened_dynamodb(self) -> DynamoDB:
        if self._dynamodb is None:
            raise RuntimeError("the local services are not open, or were asked for without DynamoDB")
        return self._dynamodb

    def _opened_postgres(self) -> Postgres:
        if self._postgres is None:
            raise RuntimeError("the local services are not open, or PostgreSQL was not asked for")
        return self._postgres


@contextlib.contextmanager
def _first_error() -> Iterator[None]:
    """Raises the first of our errors in a task group by itself: a reader wants one reason, not a tree."""
    try:
        yield
    except ExceptionGroup as group:
        ours = group.subgroup(LocalServicesError)
        if ours is None:
            raise
        raise ours.exceptions[0] from None


def _remove(scratch: Path, *, spare: Path | None) -> None:
    """Removes the temporary folder, except the logs that an error has just named."""
    for entry in scratch.iterdir():
        if entry != spare:
            shutil.rmtree(entry, ignore_errors=True)
    with contextlib.suppress(OSError):
        # Fails, as it should, when the logs are still in it.
        scratch.rmdir()
