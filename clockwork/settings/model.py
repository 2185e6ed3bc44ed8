"""Settings: one frozen class per component, each value with its name, its default and the reason for it.

The classes are plain dataclasses, so that tests and the rooms build them without a library. Their annotations carry name,
limits and meaning; pydantic reads those once, at the start (`clockwork.settings.sources`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from clockwork.settings.parsing import (
    broker,
    brokers_of,
    client_topic,
    host_name,
    http_url,
    listed,
    page_url,
    postgres_url,
    region_name,
    safe_url,
    switch,
    topic_rate,
)

SHARDS_MAX: Final = 10_000
"""Each shard is a Kafka partition of two topics and a producer; past this a Kafka cluster suffers first."""
FRONTIER_LEAD_MS_MAX: Final = 5_000
BATCH_RECORDS_MAX: Final = 2_000
"""Together with the rows that await cleanup it must stay below the number of rows that one marker may list."""
_TableName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{3,255}$")]
_KafkaName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,200}$")]
_Cluster = Annotated[
    _KafkaName,
    Field(
        alias="CLOCKWORK_CLUSTER",
        description="prefix of the internal topics and transactional ids, so that two clusters can share a Kafka",
    ),
]
_Shards = Annotated[
    int,
    Field(
        alias="CLOCKWORK_SHARDS",
        ge=1,
        le=SHARDS_MAX,
        description="number of shards; fixed for the life of a cluster, because it decides the shard of a key",
    ),
]
_CreateResources = Annotated[
    bool | None,
    Field(
        alias="CLOCKWORK_CREATE_RESOURCES",
        description=(
            "create missing tables and internal topics; default: true where "
            "the store is memory, or DynamoDB at a DYNAMODB_ENDPOINT (not AWS), else false"
        ),
    ),
]
_ScanIntervalMs = Annotated[
    int,
    Field(
        alias="CLOCKWORK_SCAN_INTERVAL_MS",
        ge=10,
        le=3_600_000,
        description="interval at which an idle shard is scanned: the lateness that a lost wake-up may cost",
    ),
]
JobsMode = Literal["on", "manual", "off"]
JOBS_DEFAULT: Final[JobsMode] = "off"
_Jobs = Annotated[
    JobsMode,
    BeforeValidator(switch),
    Field(
        alias="CLOCKWORK_JOBS",
        description=(
            "recurring jobs: on, manual (kept, and run by hand; their triggers arm nothing: for test systems) or off; on "
            "only once all nodes of the cluster know jobs"
        ),
    ),
]
_RetentionMs = Annotated[
    int,
    Field(
        alias="CLOCKWORK_RETENTION_MS",
        ge=1_000,
        le=10 * 366 * 86_400_000,
        description="how long the outcome of an ended schedule is kept",
    ),
]
CLUSTER_DEFAULT: Final = "clockwork"
SHARDS_DEFAULT: Final = 64
SCAN_INTERVAL_MS_DEFAULT: Final = 5_000
RETENTION_MS_DEFAULT: Final = 7 * 86_400_000
PROCESSES_MAX: Final = 64
"""More than a machine of today has cores for; each takes some 100 MB and its own connections."""
POSTGRES_URL: Final = "CLOCKWORK_POSTGRES_URL"
POSTGRES_TLS_CA: Final = "CLOCKWORK_POSTGRES_TLS_CA"
POSTGRES_TLS_CERT: Final = "CLOCKWORK_POSTGRES_TLS_CERT"
POSTGRES_TLS_KEY: Final = "CLOCKWORK_POSTGRES_TLS_KEY"
DEAD_LETTER_TOPICS: Final = "CLOCKWORK_DEAD_LETTER_TOPICS"
UI_LINKS: Final = "CLOCKWORK_UI_LINKS"
UI_SECRET_FILE: Final = "CLOCKWORK_UI_SECRET_FILE"
HTTP_CERT: Final = "CLOCKWORK_HTTP_TLS_CERT"
HTTP_KEY: Final = "CLOCKWORK_HTTP_TLS_KEY"
PROTOCOL: Final = "CLOCKWORK_KAFKA_SECURITY_PROTOCOL"
MECHANISM: Final = "CLOCKWORK_KAFKA_SASL_MECHANISM"
USERNAME: Final = "CLOCKWORK_KAFKA_SASL_USERNAME"
PASSWORD: Final = "CLOCKWORK_KAFKA_SASL_PASSWORD"
TLS_CA: Final = "CLOCKWORK_KAFKA_TLS_CA"
TLS_CERT: Final = "CLOCKWORK_KAFKA_TLS_CERT"
TLS_KEY: Final = "CLOCKWORK_KAFKA_TLS_KEY"
CHECK_HOSTNAME: Final = "CLOCKWORK_KAFKA_TLS_CHECK_HOSTNAME"
MSK_IAM: Final = "AWS_MSK_IAM"
Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "AWS_MSK_IAM"]
_upper = BeforeValidator(lambda v: v.upper() if isinstance(v, str) else v)
HttpTlsCert = Annotated[
    Path | None,
    Field(
        alias=HTTP_CERT,
        description=(
            "PEM file with the server certificate and its chain: HTTPS in place of HTTP; read again when it changes"
        ),
    ),
]
HttpTlsKey = Annotated[
    Path | None, Field(alias=HTTP_KEY, description="PEM file with the private key of the certificate, not encrypted")
]
_Claim = Annotated[str, Field(min_length=1, max_length=200)]
_Url = Annotated[str | None, AfterValidator(lambda v: v and safe_url(v))]
_lower = BeforeValidator(lambda v: v.lower() if isinstance(v, str) else v)


_UiUrl = Annotated[
    str | None,
    AfterValidator(lambda v: v and page_url(v)),
    Field(
        alias="CLOCKWORK_UI_URL",
        description=(
            "URL under which browsers reach the node, where a proxy changes Host or ends TLS: only pages from there may "
            "write, and logins return there"
        ),
    ),
]


def _secret(value: SecretStr, check: Callable[[str], str]) -> SecretStr:
    """A secret that is checked, unchanged. Raises: ValueError, without the value."""
    check(value.get_secret_value())
    return value


_switch = BeforeValidator(switch)
_Switch = Annotated[Literal["on", "off"], _switch]


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSettings:
    """HTTP: the address, TLS, limits of a request."""

    host: Annotated[
        str,
        Field(
            alias="CLOCKWORK_HTTP_HOST",
            min_length=1,
            description="address that the HTTP server listens on; this machine only by default",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Field(
            alias="CLOCKWORK_HTTP_PORT",
            ge=0,
            le=65_535,
            description="port of the HTTP server; 0: any free port, for tests",
        ),
    ] = 8080
    tls_cert: HttpTlsCert = None
    tls_key: HttpTlsKey = None
    body_bytes_max: Annotated[
        int,
        Field(
            alias="CLOCKWORK_BODY_BYTES_MAX",
            ge=1_024,
            le=256 * 1024 * 1024,
            description="largest request body, which is held in memory; a thousand usual schedules fit",
        ),
    ] = 16 * 1024 * 1024
    drain_timeout_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_DRAIN_TIMEOUT_MS",
            ge=0,
            le=600_000,
            description=(
                "time for requests and deliveries in flight when the node stops; below Kubernetes' grace period of 30 s"
            ),
        ),
    ] = 10_000
    hosts: Annotated[
        tuple[Annotated[str, AfterValidator(host_name)], ...] | None,
        BeforeValidator(listed),
        Field(
            alias="CLOCKWORK_HTTP_HOSTS",
            description=(
                "with CLOCKWORK_AUTH=none: names under which the node may be called, separated by commas, beside localhost "
                "and IP addresses; any other Host is refused, since a web page can give the node a name of its own"
            ),
        ),
    ] = None
    ui_url: _UiUrl = None
    ui_read_units_per_second: Annotated[
        int,
        Field(
            alias="CLOCKWORK_UI_READ_UNITS_PER_SECOND",
            ge=1,
            le=1_000_000,
            description=(
                "read units of the store that the dashboard's calls may use in a second, in each process, and ten times as "
                "many at once; beyond them they are answered 429. A unit is DynamoDB's, or four rows of PostgreSQL"
            ),
        ),
    ] = 50
    checks_host: bool = True
    """False where callers need a key (CLOCKWORK_AUTH)."""
    cluster: _Cluster = CLUSTER_DEFAULT
    """Topics that begin with it are not for clients."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UiSettings:
    """Dashboard: the page on every node that accepts, and the sessions of its readers."""

    enabled: Annotated[
        _Switch,
        Field(
            alias="CLOCKWORK_UI",
            description="on: the dashboard under /ui/, on nodes that accept; off: no page, no sessions",
        ),
    ] = "on"
    url: _UiUrl = None
    banner: Annotated[
        str | None,
        Field(
            alias="CLOCKWORK_UI_BANNER",
            max_length=40,
            description="word on a coloured band of every page, such as production; actions on many then ask for the number",
        ),
    ] = None
    secret_file: Annotated[
        Path | None,
        Field(
            alias=UI_SECRET_FILE,
            description=(
                "file with the secrets that sign sessions, 32 bytes or more a line: the first signs, all verify; read again "
                "when it changes; the same on every node; absent: random at each start, for one node"
            ),
        ),
    ] = None
    links_file: Annotated[
        Path | None,
        Field(
            alias=UI_LINKS,
            description=(
                "TOML file with addresses elsewhere, for links: `topic`, `record` and `trace`, with {topic}, {partition}, "
                "{offset} and {traceId} in them"
            ),
        ),
    ] = None
    cluster: _Cluster = CLUSTER_DEFAULT


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSettings:
    """Processes of a node."""

    count: Annotated[
        int,
        Field(
            alias="CLOCKWORK_PROCESSES",
            ge=1,
            le=PROCESSES_MAX,
            description="processes of one node on one port; each uses one core, so up to the number of cores",
        ),
    ] = 1

    def instance_ids(self, of_node: str) -> list[str]:
        """The names in the group of its processes, by number."""
        return [of_node] if self.count == 1 else [f"{of_node}-{number}" for number in range(self.count)]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreSettings:
    """Store: the kind of store that keeps the schedules."""

    kind: Annotated[
        Literal["dynamodb", "postgresql", "memory"],
        _lower,
        Field(
            alias="CLOCKWORK_STORE",
            description=(
                "store of the schedules: dynamodb; postgresql (15 or later); memory: the node itself, while it lives, for "
                "trying out"
            ),
        ),
    ] = "dynamodb"

    @property
    def in_process(self) -> bool:
        """True if the store lives in the node's process: no other process can work on it."""
        return self.kind == "memory"


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamoSettings:
    """DynamoDB: the tables and how to reach them."""

    region: Annotated[
        str, AfterValidator(region_name), Field(alias="AWS_REGION", description="AWS region of the tables")
    ] = "us-east-1"
    access_key: Annotated[
        str | None, Field(alias="AWS_ACCESS_KEY", description="AWS access key; absent: the usual AWS credential chain")
    ] = None
    secret_key: Annotated[SecretStr | None, Field(alias="AWS_SECRET_KEY", description="secret of AWS_ACCESS_KEY")] = (
        None
    )
    endpoint: Annotated[
        str | None,
        AfterValidator(lambda v: v and http_url(v)),
        Field(alias="DYNAMODB_ENDPOINT", description="URL of another DynamoDB; absent: AWS"),
    ] = None
    schedules_table: Annotated[_TableName, Field(alias="SCHEDULE_DB", description="table of the pending schedules")] = (
        "schedules"
    )
    executions_table: Annotated[
        _TableName, Field(alias="PARTITION_EXEC_DB", description="table of the shards: epoch and frontier of each")
    ] = "partitionExecutions"
    keys_table: Annotated[
        _TableName, Field(alias="SCHEDULE_KEY_DB", description="table of pointers and outcomes, by key")
    ] = "scheduleKeys"
    jobs_table: Annotated[
        _TableName,
        Field(alias="JOB_DB", description="table of the recurring jobs: state, definitions and runs of each"),
    ] = "jobs"
    search: Annotated[
        _Switch,
        Field(
            alias="CLOCKWORK_SEARCH",
            description=(
                "on: lists of schedules (GET /schedules), whose index costs one write unit a "
                "create; off: no index, and 501"
            ),
        ),
    ] = "on"
    create_resources: _CreateResources = None
    """Never None in loaded settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PostgresSettings:
    """PostgreSQL: the database and how to reach it. What is not set here is taken from libpq's variables (`PGHOST`, …)."""

    url: Annotated[
        SecretStr | None,
        AfterValidator(lambda v: v and _secret(v, postgres_url)),
        Field(
            alias=POSTGRES_URL,
            description=(
                "postgresql://user@host:port,host:port/database?target_session_attrs=read-write; absent: PGHOST, "
                "PGDATABASE and so on"
            ),
        ),
    ] = None
    user: Annotated[
        str | None,
        Field(alias="CLOCKWORK_POSTGRES_USER", min_length=1, description="user; goes before the URL's"),
    ] = None
    password: Annotated[
        SecretStr | None,
        Field(alias="CLOCKWORK_POSTGRES_PASSWORD", min_length=1, description="password; goes before the URL's"),
    ] = None
    schema: Annotated[
        str,
        Field(
            alias="CLOCKWORK_POSTGRES_SCHEMA",
            pattern=r"^[a-z_][a-z0-9_]{0,62}$",
            description="schema of the tables, so that two clusters can share a database",
        ),
    ] = "clockwork"
    pool: Annotated[
        int,
        Field(
            alias="CLOCKWORK_POSTGRES_POOL",
            ge=2,
            le=100,
            description="connections of one process; requests share statements, so a few carry thousands a second",
        ),
    ] = 8
    tls_ca: Annotated[
        Path | None,
        Field(
            alias=POSTGRES_TLS_CA,
            description=(
                "PEM file with the authorities that may sign the server's certificate: TLS, its host name checked; "
                "absent: as sslmode in the URL or PGSSLMODE says"
            ),
        ),
    ] = None
    tls_cert: Annotated[
        Path | None,
        Field(
            alias=POSTGRES_TLS_CERT,
            description="PEM file with this node's own certificate, where the server asks for one; needs the authorities",
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        Field(
            alias=POSTGRES_TLS_KEY,
            description="PEM file with the private key of the certificate, not encrypted",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaSettings:
    """Kafka: the brokers, the internal topics, the membership in the group."""

    brokers: Annotated[
        tuple[Annotated[str, AfterValidator(broker)], ...],
        BeforeValidator(brokers_of),
        Field(alias="KAFKA_BROKERS", min_length=1, description="Kafka brokers, host:port, separated by commas"),
    ] = ("127.0.0.1:9092",)
    consumer_group: Annotated[
        str,
        Field(
            alias="KAFKA_CONSUMER_GROUP",
            min_length=1,
            max_length=249,
            description="consumer group whose assignment says which node owns which shard",
        ),
    ] = "clockwork"
    cluster: _Cluster = CLUSTER_DEFAULT
    shards: _Shards = SHARDS_DEFAULT
    session_timeout_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_SESSION_TIMEOUT_MS",
            ge=1_000,
            le=1_800_000,
            description=(
                "silence after which a node loses its shards; brokers accept 6 s and more unless configured otherwise"
            ),
        ),
    ] = 10_000
    heartbeat_interval_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_HEARTBEAT_INTERVAL_MS",
            ge=50,
            le=600_000,
            description="interval of group heartbeats: how soon a node hears of a rebalance",
        ),
    ] = 500
    instance_id: Annotated[
        _KafkaName | None,
        Field(
            alias="CLOCKWORK_INSTANCE_ID",
            description="name of this node for static membership in the group: rolling restarts move no shard",
        ),
    ] = None
    create_resources: _CreateResources = None
    """Never None in loaded settings."""
    commands: bool = False
    """Follows from `CLOCKWORK_COMMANDS`: there is a commands topic."""
    activity: bool = True
    """Follows from `CLOCKWORK_EVENTS`: there are topics of events and minutes."""
    client_dead_letter_topics: tuple[str, ...] = ()
    """Follows from `CLOCKWORK_DEAD_LETTER_TOPICS`: the clients' own topics of dead letters."""

    @property
    def shards_topic(self) -> str:
        """The ownership topic: one Kafka partition per shard; its records are wake-ups."""
        return f"{self.cluster}-shards"

    @property
    def deliveries_topic(self) -> str:
        """The markers, compacted; any number of Kafka partitions."""
        return f"{self.cluster}-deliveries"

    @property
    def dead_letters_topic(self) -> str:
        """The dead letters of all clients that have no topic of their own for them."""
        return f"{self.cluster}-dead-letters"

    @property
    def commands_topic(self) -> str:
        """The commands, which the nodes read; only with `commands`."""
        return f"{self.cluster}-commands"

    @property
    def events_topic(self) -> str:
        """The latest events, for people who look; only with `activity`."""
        return f"{self.cluster}-events"

    @property
    def minutes_topic(self) -> str:
        """The counts of each minute; only with `activity`."""
        return f"{self.cluster}-minutes"

    @property
    def commands_group(self) -> str:
        """The consumer group of the nodes that read commands."""
        return f"{self.consumer_group}-commands"

    def transactional_id(self, incarnation: str, slot: int) -> str:
        """The id of the producer of one slot. It follows from the incarnation's item, so a taker can fence it."""
        return f"{self.cluster}-{incarnation}-{slot}"


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaSecuritySettings:
    """TLS and SASL towards Kafka: how node and broker prove their identity to each other."""

    protocol: Annotated[
        Protocol,
        _upper,
        Field(alias=PROTOCOL, description="PLAINTEXT (a local Kafka), SSL, SASL_PLAINTEXT or SASL_SSL"),
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Mechanism | None,
        _upper,
        Field(alias=MECHANISM, description=f"PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or {MSK_IAM}; needed with SASL_…"),
    ] = None
    username: Annotated[
        str | None,
        Field(alias=USERNAME, min_length=1, description="user of PLAIN and SCRAM; MSK takes AWS's credentials"),
    ] = None
    password: Annotated[SecretStr | None, Field(alias=PASSWORD, min_length=1, description="password of the user")] = (
        None
    )
    tls_ca: Annotated[
        Path | None,
        Field(
            alias=TLS_CA,
            description="PEM file with the authorities that may sign the brokers' certificates; default: the system's",
        ),
    ] = None
    tls_cert: Annotated[
        Path | None,
        Field(
            alias=TLS_CERT, description="PEM file with this node's own certificate, where brokers ask for one (mTLS)"
        ),
    ] = None
    tls_key: Annotated[
        Path | None, Field(alias=TLS_KEY, description="PEM file with the private key of the certificate, not encrypted")
    ] = None
    check_hostname: Annotated[
        bool,
        Field(
            alias=CHECK_HOSTNAME, description="false: accept a trusted certificate of any host name; for tunnels only"
        ),
    ] = True

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("SASL_")

    @property
    def tls(self) -> bool:
        return self.protocol.endswith("SSL")


@dataclass(frozen=True, kw_only=True, slots=True)
class IntakeSettings:
    """Requests: accepting, finding and cancelling schedules."""

    cluster: _Cluster = CLUSTER_DEFAULT
    shards: _Shards = SHARDS_DEFAULT
    request_timeout_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_REQUEST_TIMEOUT_MS",
            ge=100,
            le=60_000,
            description="deadline of one API request, retries included; then 503",
        ),
    ] = 5_000
    scan_interval_ms: _ScanIntervalMs = SCAN_INTERVAL_MS_DEFAULT
    """A schedule that is due sooner is announced to the owner of its shard by a wake-up."""
    retention_ms: _RetentionMs = RETENTION_MS_DEFAULT
    jobs: _Jobs = JOBS_DEFAULT
    client_jobs_max: Annotated[
        int,
        Field(
            alias="CLOCKWORK_CLIENT_JOBS_MAX",
            ge=0,
            le=1_000_000,
            description="most recurring jobs of one client, deleted ones that are kept included; a soft limit; 0: no limit",
        ),
    ] = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerSettings:
    """Delivery of the due schedules of a shard."""

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
            description="most records of one Kafka transaction; larger ones gain little and delay the rest",
        ),
    ] = 500
    batch_bytes_max: Annotated[
        int,
        Field(
            alias="CLOCKWORK_BATCH_BYTES_MAX",
            ge=64 * 1024,
            le=64 * 1024 * 1024,
            description="most bytes of one Kafka transaction; a process sends two at a time",
        ),
    ] = 4 * 1024 * 1024
    transaction_pace_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_TRANSACTION_PACE_MS",
            ge=0,
            le=1_000,
            description="time between the begins of two Kafka transactions of a busy process; 0: none, more work for Kafka",
        ),
    ] = 20
    retry_attempts: Annotated[
        int,
        Field(
            alias="CLOCKWORK_RETRY_ATTEMPTS",
            ge=1,
            le=1_000,
            description="attempts for a record that its topic refuses; then a dead letter",
        ),
    ] = 8
    retry_initial_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_RETRY_INITIAL_MS",
            ge=1,
            le=86_400_000,
            description="first back-off between the attempts; it doubles",
        ),
    ] = 1_000
    retry_max_ms: Annotated[
        int,
        Field(alias="CLOCKWORK_RETRY_MAX_MS", ge=1, le=86_400_000, description="longest back-off between the attempts"),
    ] = 60_000
    topic_wait_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_TOPIC_WAIT_MS",
            ge=0,
            le=30 * 86_400_000,
            description="how long the schedules of a missing or forbidden topic wait before they fail",
        ),
    ] = 900_000
    retention_ms: _RetentionMs = RETENTION_MS_DEFAULT
    jobs: _Jobs = JOBS_DEFAULT
    job_audit_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_JOB_AUDIT_MS",
            ge=60_000,
            le=7 * 86_400_000,
            description="interval in which every recurring job is checked for a lost next run: one read of all of them",
        ),
    ] = 3_600_000
    job_log: Annotated[
        _Switch,
        Field(
            alias="CLOCKWORK_JOB_LOG",
            description="on: each run of a recurring job is a line of this log, with the job's id, when it has ended",
        ),
    ] = "off"
    dead_letter_topic: str = f"{CLUSTER_DEFAULT}-dead-letters"
    """Follows from the cluster's name."""
    dead_letter_topics: Mapping[str, str] = field(default_factory=dict)
    """By client, where it is another one; see `DeadLetterSettings`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSettings:
    """Logs, events and traces."""

    format: Annotated[
        Literal["auto", "text", "json"],
        _lower,
        Field(
            alias="CLOCKWORK_LOG_FORMAT",
            description="auto (text on a terminal, else JSON), text, or json (one object a line)",
        ),
    ] = "auto"
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _lower,
        Field(
            alias="CLOCKWORK_LOG_LEVEL",
            description=(
                "debug, info, warning or error; info is one line for each event that an operator may have to know"
            ),
        ),
    ] = "info"
    events: Annotated[
        _Switch,
        Field(
            alias="CLOCKWORK_EVENTS",
            description=(
                "on: what happens, and its counts of each minute, go to the topics `<cluster>-events` and "
                "`<cluster>-minutes`, for the dashboard and `GET /events`; best effort, without payloads"
            ),
        ),
    ] = "on"
    tracing: Annotated[
        Literal["off", "otlp"],
        _switch,
        Field(
            alias="CLOCKWORK_TRACING",
            description="otlp: spans of creates and deliveries, exported as OpenTelemetry's OTEL_… variables say",
        ),
    ] = "off"


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessSettings:
    """Access: who may call, and how much a client may create."""

    auth: Annotated[
        Literal["none", "keys", "oidc"],
        _lower,
        Field(
            alias="CLOCKWORK_AUTH",
            description=(
                "who may call: anyone (none), holders of API keys (keys) or of an OpenID Connect issuer's tokens (oidc)"
            ),
        ),
    ] = "none"
    keys_file: Annotated[
        str | None,
        Field(
            alias="CLOCKWORK_AUTH_KEYS_FILE",
            description="for keys: TOML file with the hashes of the keys; a change counts at once",
        ),
    ] = None
    oidc_issuer: Annotated[
        _Url, Field(alias="CLOCKWORK_OIDC_ISSUER", description="for oidc: the issuer; `iss` of a token must equal it")
    ] = None
    oidc_audience: Annotated[
        str | None,
        Field(alias="CLOCKWORK_OIDC_AUDIENCE", description="for oidc: the audience; `aud` of a token must hold it"),
    ] = None
    oidc_jwks_url: Annotated[
        _Url,
        Field(
            alias="CLOCKWORK_OIDC_JWKS_URL",
            description="for oidc: URL of the issuer's keys (JWKS); default: the one in its discovery document",
        ),
    ] = None
    oidc_name_claim: Annotated[
        _Claim,
        Field(alias="CLOCKWORK_OIDC_NAME_CLAIM", description="for oidc: claim with the caller's name, for the log"),
    ] = "sub"
    oidc_clients_claim: Annotated[
        _Claim,
        Field(
            alias="CLOCKWORK_OIDC_CLIENTS_CLAIM",
            description="for oidc: claim with the clientIds that the caller may use, or prefixes with *",
        ),
    ] = "clockwork_clients"
    oidc_topics_claim: Annotated[
        _Claim,
        Field(
            alias="CLOCKWORK_OIDC_TOPICS_CLAIM",
            description="for oidc: claim with the topics that the caller may use, or prefixes with *",
        ),
    ] = "clockwork_topics"
    oidc_rights_claim: Annotated[
        _Claim,
        Field(
            alias="CLOCKWORK_OIDC_RIGHTS_CLAIM",
            description="for oidc: claim with the caller's rights: create, cancel, read, complete, operate, admin",
        ),
    ] = "clockwork_rights"
    oidc_redacted_claim: Annotated[
        _Claim,
        Field(
            alias="CLOCKWORK_OIDC_REDACTED_CLAIM",
            description=(
                "for oidc: claim that, unless it is false, takes taskData and header values out of the caller's answers"
            ),
        ),
    ] = "clockwork_redacted"
    oidc_ui_client_id: Annotated[
        str | None,
        Field(
            alias="CLOCKWORK_OIDC_UI_CLIENT_ID",
            min_length=1,
            description="for oidc: client under which the issuer knows the dashboard; absent: no login there",
        ),
    ] = None
    oidc_ui_secret_file: Annotated[
        Path | None,
        Field(
            alias="CLOCKWORK_OIDC_UI_SECRET_FILE",
            description="for oidc: file with the secret of that client; absent: a public client, which has none",
        ),
    ] = None
    oidc_ui_scopes: Annotated[
        str,
        Field(
            alias="CLOCKWORK_OIDC_UI_SCOPES",
            pattern=r"^[!#-\[\]-~]+( [!#-\[\]-~]+)*$",
            description="for oidc: what a login asks the issuer for, separated by blanks; openid has to be among it",
        ),
    ] = "openid"
    creates_per_second: Annotated[
        int,
        Field(
            alias="CLOCKWORK_CREATES_PER_SECOND",
            ge=0,
            le=1_000_000,
            description="most creates of one client a second on one node; 0: no limit",
        ),
    ] = 0
    create_bytes_per_second: Annotated[
        int,
        Field(
            alias="CLOCKWORK_CREATE_BYTES_PER_SECOND",
            ge=0,
            le=1_000_000_000,
            description="most bytes of `taskData` of one client a second on one node; 0: no limit",
        ),
    ] = 0
    client_pending_max: Annotated[
        int,
        Field(
            alias="CLOCKWORK_CLIENT_PENDING_MAX",
            ge=0,
            le=1_000_000_000,
            description=(
                "most pending schedules of one client; a soft limit (docs/access.md) that needs "
                "CLOCKWORK_SEARCH; 0: no limit"
            ),
        ),
    ] = 0
    commands: Annotated[
        _Switch,
        Field(alias="CLOCKWORK_COMMANDS", description="on: also accept commands from the topic `<cluster>-commands`"),
    ] = "off"
    commands_principal: Annotated[
        str | None,
        Field(
            alias="CLOCKWORK_COMMANDS_PRINCIPAL",
            min_length=1,
            description=(
                "principal whose rights commands have: a name in the keys file, or * for all "
                "rights; needed unless CLOCKWORK_AUTH is none"
            ),
        ),
    ] = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionSettings:
    """HTTP connections: limits of number and time."""

    connections_max: Annotated[
        int,
        Field(
            alias="CLOCKWORK_HTTP_CONNECTIONS_MAX",
            ge=1,
            le=100_000,
            description="most HTTP connections at once; keep it below the process's limit of open files",
        ),
    ] = 512
    head_timeout_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_HTTP_HEAD_TIMEOUT_MS",
            ge=10,
            le=600_000,
            description="time for a client to send a request's line and headers, from the first byte on",
        ),
    ] = 10_000
    send_timeout_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_HTTP_SEND_TIMEOUT_MS",
            ge=10,
            le=600_000,
            description="time for a client to take an answer",
        ),
    ] = 30_000


@dataclass(frozen=True, kw_only=True, slots=True)
class PaceSettings:
    """Rate limits of deliveries, by topic."""

    deliveries_per_second: Annotated[
        int,
        Field(
            alias="CLOCKWORK_TOPIC_DELIVERIES_PER_SECOND",
            ge=0,
            le=1_000_000,
            description=(
                "most deliveries to a topic a second on one node, so that a catch-up does not "
                "flood consumers; 0: no limit"
            ),
        ),
    ] = 0
    topic_rates: Annotated[
        tuple[Annotated[str, AfterValidator(topic_rate)], ...] | None,
        BeforeValidator(listed),
        Field(alias="CLOCKWORK_TOPIC_RATES", description="limits of single topics, topic=number, separated by commas"),
    ] = None

    def per_second(self) -> dict[str, int]:
        """The topics with a limit of their own."""
        return {topic: int(rate) for topic, _, rate in (each.partition("=") for each in self.topic_rates or ())}


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterSettings:
    """Dead letters of single clients."""

    topics: Annotated[
        tuple[Annotated[str, AfterValidator(client_topic)], ...] | None,
        BeforeValidator(listed),
        Field(
            alias=DEAD_LETTER_TOPICS,
            description="topics for the dead letters of single clients, clientId=topic, separated by commas",
        ),
    ] = None

    def of_clients(self) -> dict[str, str]:
        """The topics, by client."""
        return {client: topic for client, _, topic in (each.partition("=") for each in self.topics or ())}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything, checked."""

    http: HttpSettings = field(default_factory=HttpSettings)
    ui: UiSettings = field(default_factory=UiSettings)
    processes: ProcessSettings = field(default_factory=ProcessSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    dynamo: DynamoSettings = field(default_factory=DynamoSettings)
    postgres: PostgresSettings = field(default_factory=PostgresSettings)
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    kafka_security: KafkaSecuritySettings = field(default_factory=KafkaSecuritySettings)
    intake: IntakeSettings = field(default_factory=IntakeSettings)
    runner: RunnerSettings = field(default_factory=RunnerSettings)
    log: LogSettings = field(default_factory=LogSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    connections: ConnectionSettings = field(default_factory=ConnectionSettings)
    pace: PaceSettings = field(default_factory=PaceSettings)
    dead_letters: DeadLetterSettings = field(default_factory=DeadLetterSettings)
