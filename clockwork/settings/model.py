"""Settings: one frozen class per component, each value with its name, its default and the reason for it.

The only reader of the environment. Precedence: environment, then the TOML file that `CLOCKWORK_CONFIG` names (the same
names, in any letter case), then the default. An empty environment variable counts as absent, because that is what
compose files and charts make of a value that was not given.

The classes are plain dataclasses, so that tests and the engine build them without a library; their annotations carry
name, limits and meaning, and pydantic reads those once, at the start. It is given text only (TOML values included),
so that `true` is no number and both sources mean the same. Not pydantic-settings: it lets unknown names pass.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Final, Literal, TypeVar, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from clockwork.errors import StartRefused
from clockwork.settings.access import AccessSettings, ConnectionSettings, PaceSettings
from clockwork.settings.dead_letters import DeadLetterSettings
from clockwork.settings.parsing import broker, brokers_of, http_url
from clockwork.settings.processes import ProcessSettings
from clockwork.settings.security import HttpTlsCert, HttpTlsKey, KafkaSecuritySettings, security_disagreements
from clockwork.settings.sources import values_of
from clockwork.settings.watching import LogSettings

SHARDS_MAX: Final = 10_000
"""Each shard is a Kafka partition of two topics and a producer; past this a Kafka cluster suffers first."""
FRONTIER_LEAD_MS_MAX: Final = 5_000
BATCH_RECORDS_MAX: Final = 2_000
"""With the rows still being tidied up it must stay below what one marker may list."""


_TableName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{3,255}$")]
_KafkaName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,200}$")]
_Cluster = Annotated[
    _KafkaName,
    Field(alias="CLOCKWORK_CLUSTER", description="prefix of the internal topics and transactional ids"),
]
_Shards = Annotated[
    int,
    Field(alias="CLOCKWORK_SHARDS", ge=1, le=SHARDS_MAX, description="fixed for the cluster's life: a key's shard"),
]
_CreateResources = Annotated[
    bool | None,
    Field(
        alias="CLOCKWORK_CREATE_RESOURCES",
        description="make missing tables and topics; default: where DYNAMODB_ENDPOINT is set or the store is memory",
    ),
]
_ScanIntervalMs = Annotated[
    int,
    Field(alias="CLOCKWORK_SCAN_INTERVAL_MS", ge=10, le=3_600_000, description="lateness a lost wake-up may cost"),
]
_RetentionMs = Annotated[
    int,
    Field(alias="CLOCKWORK_RETENTION_MS", ge=1_000, le=10 * 366 * 86_400_000, description="of outcomes"),
]
CLUSTER_DEFAULT: Final = "clockwork"
SHARDS_DEFAULT: Final = 64
SCAN_INTERVAL_MS_DEFAULT: Final = 5_000
RETENTION_MS_DEFAULT: Final = 7 * 86_400_000


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSettings:
    """The HTTP edge."""

    host: Annotated[
        str, Field(alias="CLOCKWORK_HTTP_HOST", min_length=1, description="this machine only, unless told otherwise")
    ] = "127.0.0.1"
    port: Annotated[
        int, Field(alias="CLOCKWORK_HTTP_PORT", ge=0, le=65_535, description="0: any free one, as tests need it")
    ] = 8080
    tls_cert: HttpTlsCert = None
    tls_key: HttpTlsKey = None
    body_bytes_max: Annotated[
        int,
        Field(
            alias="CLOCKWORK_BODY_BYTES_MAX",
            ge=1_024,
            le=256 * 1024 * 1024,
            description="a request is held in memory; a thousand usual schedules fit",
        ),
    ] = 16 * 1024 * 1024
    drain_timeout_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_DRAIN_TIMEOUT_MS",
            ge=0,
            le=600_000,
            description="for what is in flight when the node stops; below Kubernetes' 30 s grace period",
        ),
    ] = 10_000
    cluster: _Cluster = CLUSTER_DEFAULT
    """Topics that begin with it are not for clients."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreSettings:
    """The kind of the store."""

    kind: Annotated[
        Literal["dynamodb", "memory"],
        Field(
            alias="CLOCKWORK_STORE", description="where schedules are kept: dynamodb, or memory while the process lives"
        ),
    ] = "dynamodb"

    @property
    def in_process(self) -> bool:
        """Whether the store lives in the node's process: no other process can work on it."""
        return self.kind == "memory"


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamoSettings:
    """The tables and how to reach them."""

    region: Annotated[str, Field(alias="AWS_REGION", min_length=1, description="of the tables")] = "us-east-1"
    access_key: Annotated[
        str | None, Field(alias="AWS_ACCESS_KEY", description="absent: the usual AWS credential chain")
    ] = None
    secret_key: Annotated[SecretStr | None, Field(alias="AWS_SECRET_KEY", description="of AWS_ACCESS_KEY")] = None
    endpoint: Annotated[
        str | None, AfterValidator(lambda v: v and http_url(v)), Field(alias="DYNAMODB_ENDPOINT", description="AWS")
    ] = None
    schedules_table: Annotated[_TableName, Field(alias="SCHEDULE_DB", description="rows")] = "schedules"
    executions_table: Annotated[
        _TableName, Field(alias="PARTITION_EXEC_DB", description="epoch and frontier of each shard")
    ] = "partitionExecutions"
    keys_table: Annotated[_TableName, Field(alias="SCHEDULE_KEY_DB", description="pointers, outcomes")] = "scheduleKeys"
    search: Annotated[
        Literal["on", "off"], Field(alias="CLOCKWORK_SEARCH", description="its index costs a write unit per create")
    ] = "on"
    create_resources: _CreateResources = None
    """Never None in loaded settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaSettings:
    """The brokers, the internal topics, and the membership in the group."""

    brokers: Annotated[
        tuple[Annotated[str, AfterValidator(broker)], ...],
        BeforeValidator(brokers_of),
        Field(alias="KAFKA_BROKERS", min_length=1, description="host:port, separated by commas"),
    ] = ("127.0.0.1:9092",)
    consumer_group: Annotated[
        str, Field(alias="KAFKA_CONSUMER_GROUP", min_length=1, max_length=249, description="of the shards' owners")
    ] = "clockwork"
    cluster: _Cluster = CLUSTER_DEFAULT
    shards: _Shards = SHARDS_DEFAULT
    session_timeout_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_SESSION_TIMEOUT_MS",
            ge=1_000,
            le=1_800_000,
            description="after which a silent node loses its shards; brokers accept 6 s and more unless told otherwise",
        ),
    ] = 10_000
    heartbeat_interval_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_HEARTBEAT_INTERVAL_MS",
            ge=50,
            le=600_000,
            description="how soon a node hears of a rebalance",
        ),
    ] = 500
    instance_id: Annotated[
        _KafkaName | None, Field(alias="CLOCKWORK_INSTANCE_ID", description="static membership: for rolling restarts")
    ] = None
    create_resources: _CreateResources = None
    """Never None in loaded settings."""

    @property
    def shards_topic(self) -> str:
        """The ownership topic."""
        return f"{self.cluster}-shards"

    @property
    def deliveries_topic(self) -> str:
        """The markers."""
        return f"{self.cluster}-deliveries"

    @property
    def dead_letters_topic(self) -> str:
        return f"{self.cluster}-dead-letters"


@dataclass(frozen=True, kw_only=True, slots=True)
class IntakeSettings:
    """Accepting, finding and cancelling schedules."""

    cluster: _Cluster = CLUSTER_DEFAULT
    shards: _Shards = SHARDS_DEFAULT
    request_timeout_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_REQUEST_TIMEOUT_MS",
            ge=100,
            le=60_000,
            description="deadline of one API request, its retries included; then 503",
        ),
    ] = 5_000
    scan_interval_ms: _ScanIntervalMs = SCAN_INTERVAL_MS_DEFAULT
    """What is due sooner is announced to the shard's owner by a wake-up."""
    retention_ms: _RetentionMs = RETENTION_MS_DEFAULT


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerSettings:
    """Firing the schedules of one shard."""

    scan_interval_ms: _ScanIntervalMs = SCAN_INTERVAL_MS_DEFAULT
    frontier_lead_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_FRONTIER_LEAD_MS",
            ge=1,
            le=FRONTIER_LEAD_MS_MAX,
            description="how long before its due time a schedule can no longer be cancelled",
        ),
    ] = 250
    batch_records_max: Annotated[
        int,
        Field(
            alias="CLOCKWORK_BATCH_RECORDS_MAX",
            ge=1,
            le=BATCH_RECORDS_MAX,
            description="of one Kafka transaction; larger ones gain little and delay the rest",
        ),
    ] = 500
    batch_bytes_max: Annotated[
        int,
        Field(
            alias="CLOCKWORK_BATCH_BYTES_MAX",
            ge=64 * 1024,
            le=64 * 1024 * 1024,
            description="of one Kafka transaction; it is held in memory once per shard",
        ),
    ] = 4 * 1024 * 1024
    retry_attempts: Annotated[
        int, Field(alias="CLOCKWORK_RETRY_ATTEMPTS", ge=1, le=1_000, description="of a record its topic refuses")
    ] = 8
    retry_initial_ms: Annotated[
        int, Field(alias="CLOCKWORK_RETRY_INITIAL_MS", ge=1, le=86_400_000, description="first back-off, then doubling")
    ] = 1_000
    retry_max_ms: Annotated[
        int, Field(alias="CLOCKWORK_RETRY_MAX_MS", ge=1, le=86_400_000, description="the back-off's upper end")
    ] = 60_000
    topic_wait_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_TOPIC_WAIT_MS",
            ge=0,
            le=30 * 86_400_000,
            description="how long a missing or forbidden topic's schedules wait before they fail",
        ),
    ] = 900_000
    retention_ms: _RetentionMs = RETENTION_MS_DEFAULT
    dead_letter_topic: str = f"{CLUSTER_DEFAULT}-dead-letters"
    """Follows from the cluster's name."""
    dead_letter_topics: Mapping[str, str] = field(default_factory=dict)
    """By client, where it is another one; see `DeadLetterSettings`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything, checked."""

    http: HttpSettings = field(default_factory=HttpSettings)
    processes: ProcessSettings = field(default_factory=ProcessSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    dynamo: DynamoSettings = field(default_factory=DynamoSettings)
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    kafka_security: KafkaSecuritySettings = field(default_factory=KafkaSecuritySettings)
    intake: IntakeSettings = field(default_factory=IntakeSettings)
    runner: RunnerSettings = field(default_factory=RunnerSettings)
    log: LogSettings = field(default_factory=LogSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    connections: ConnectionSettings = field(default_factory=ConnectionSettings)
    pace: PaceSettings = field(default_factory=PaceSettings)
    dead_letters: DeadLetterSettings = field(default_factory=DeadLetterSettings)


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingName:
    """One name that may be set, for messages, documents and checks."""

    name: str
    default: object
    reason: str


_COMPONENTS: Final[tuple[type[Any], ...]] = (
    HttpSettings,
    ProcessSettings,
    StoreSettings,
    DynamoSettings,
    KafkaSettings,
    KafkaSecuritySettings,
    IntakeSettings,
    RunnerSettings,
    LogSettings,
    AccessSettings,
    ConnectionSettings,
    PaceSettings,
    DeadLetterSettings,
)
_Component = TypeVar("_Component")


def setting_names() -> tuple[SettingName, ...]:
    """Every name, once, in the order of the classes."""
    found: dict[str, SettingName] = {}
    for component in _COMPONENTS:
        for name, default, info in _named_fields(component):
            found.setdefault(name, SettingName(name=name, default=default, reason=info.description or ""))
    return tuple(found.values())


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Reads and checks everything; the environment is not looked at again.

    Raises: StartRefused, naming every unknown name and every wrong value, never a value itself.
    """
    problems: list[str] = []
    values = values_of(environ, {each.name for each in setting_names()}, problems)
    http = _component(HttpSettings, values, problems)
    processes = _component(ProcessSettings, values, problems)
    store = _component(StoreSettings, values, problems)
    dynamo = _component(DynamoSettings, values, problems)
    kafka = _component(KafkaSettings, values, problems)
    security = _component(KafkaSecuritySettings, values, problems)
    intake = _component(IntakeSettings, values, problems)
    runner = _component(RunnerSettings, values, problems)
    log = _component(LogSettings, values, problems)
    access = _component(AccessSettings, values, problems)
    connections = _component(ConnectionSettings, values, problems)
    pace = _component(PaceSettings, values, problems)
    dead_letters = _component(DeadLetterSettings, values, problems)
    if not problems:
        problems += [*_disagreements(dynamo, kafka, runner), *access.disagreements(search=dynamo.search)]
        problems += security_disagreements(security, http_cert=http.tls_cert, http_key=http.tls_key)
        problems += dead_letters.disagreements(kafka.cluster)
        if store.in_process and processes.count > 1:
            problems.append(
                f"CLOCKWORK_PROCESSES: must be 1 with CLOCKWORK_STORE={store.kind}, which one process keeps"
            )
    if problems:
        raise StartRefused("settings: " + "; ".join(dict.fromkeys(problems)))
    local = dynamo.endpoint is not None or store.in_process
    create = dynamo.create_resources if dynamo.create_resources is not None else local
    return Settings(
        http=http,
        processes=processes,
        store=store,
        dynamo=replace(dynamo, create_resources=create),
        kafka=replace(kafka, create_resources=create),
        kafka_security=security,
        intake=intake,
        runner=replace(
            runner, dead_letter_topic=kafka.dead_letters_topic, dead_letter_topics=dead_letters.of_clients()
        ),
        log=log,
        access=access,
        connections=connections,
        pace=pace,
        dead_letters=dead_letters,
    )


def _named_fields(component: type[Any]) -> Iterator[tuple[str, object, FieldInfo]]:
    hints = get_type_hints(component, include_extras=True)
    for each in fields(component):
        for info in getattr(hints[each.name], "__metadata__", ()):
            if isinstance(info, FieldInfo) and info.alias is not None:
                yield info.alias, each.default, info


def _component(component: type[_Component], values: Mapping[str, str], problems: list[str]) -> _Component:
    """One class from its values; its defaults stand in while further problems are collected."""
    try:
        return TypeAdapter(component).validate_python(values)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False, include_context=False)
        problems += [f"{each['loc'][0]}: {each['msg']}" for each in wrong]
        return component()


def _disagreements(dynamo: DynamoSettings, kafka: KafkaSettings, runner: RunnerSettings) -> Iterator[str]:
    """Values that are fine alone and wrong together; only looked at when each is fine alone."""
    if (dynamo.access_key is None) != (dynamo.secret_key is None):
        missing = "AWS_ACCESS_KEY" if dynamo.access_key is None else "AWS_SECRET_KEY"
        yield f"{missing}: AWS_ACCESS_KEY and AWS_SECRET_KEY belong together, set both or neither"
    tables = (dynamo.schedules_table, dynamo.executions_table, dynamo.keys_table)
    if len(set(tables)) < len(tables):
        yield "SCHEDULE_DB, PARTITION_EXEC_DB, SCHEDULE_KEY_DB: must be three different tables"
    if kafka.heartbeat_interval_ms * 3 > kafka.session_timeout_ms:
        yield (
            "CLOCKWORK_HEARTBEAT_INTERVAL_MS: should be at most a third of CLOCKWORK_SESSION_TIMEOUT_MS, "
            "or two lost heartbeats cost the shards"
        )
    if runner.retry_initial_ms > runner.retry_max_ms:
        yield "CLOCKWORK_RETRY_INITIAL_MS: should be at most CLOCKWORK_RETRY_MAX_MS"
