"""Checks over several settings: values that are right alone and wrong together.

Each check yields one line that names the settings and says what to change, never a value that is secret.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from clockwork.settings.model import (
    CHECK_HOSTNAME,
    DEAD_LETTER_TOPICS,
    HTTP_CERT,
    HTTP_KEY,
    MECHANISM,
    MSK_IAM,
    PASSWORD,
    POSTGRES_TLS_CA,
    POSTGRES_TLS_CERT,
    POSTGRES_TLS_KEY,
    POSTGRES_URL,
    PROTOCOL,
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    USERNAME,
    AccessSettings,
    DeadLetterSettings,
    DynamoSettings,
    KafkaSecuritySettings,
    KafkaSettings,
    PostgresSettings,
    RunnerSettings,
    Settings,
)


def problems_of(settings: Settings) -> Iterator[str]:
    """One line for each contradiction; for settings whose single values are right."""
    if settings.store.in_process and settings.processes.count > 1:
        yield f"CLOCKWORK_PROCESSES: must be 1 with CLOCKWORK_STORE={settings.store.kind}, which one process keeps"
    yield from _dynamo_problems(settings.dynamo)
    yield from _postgres_problems(settings.postgres, kind=settings.store.kind)
    yield from _kafka_problems(settings.kafka)
    yield from _retry_problems(settings.runner)
    yield from _access_problems(settings.access, search=settings.dynamo.search)
    yield from _pair(HTTP_CERT, settings.http.tls_cert, HTTP_KEY, settings.http.tls_key)
    yield from _kafka_security_problems(settings.kafka_security)
    yield from _dead_letter_problems(settings.dead_letters, settings.kafka.cluster)


def _dynamo_problems(dynamo: DynamoSettings) -> Iterator[str]:
    if (dynamo.access_key is None) != (dynamo.secret_key is None):
        missing = "AWS_ACCESS_KEY" if dynamo.access_key is None else "AWS_SECRET_KEY"
        yield f"{missing}: AWS_ACCESS_KEY and AWS_SECRET_KEY belong together, set both or neither"
    tables = (dynamo.schedules_table, dynamo.executions_table, dynamo.keys_table, dynamo.jobs_table)
    if len(set(tables)) < len(tables):
        yield "SCHEDULE_DB, PARTITION_EXEC_DB, SCHEDULE_KEY_DB, JOB_DB: must be four different tables"


def _postgres_problems(postgres: PostgresSettings, *, kind: str) -> Iterator[str]:
    # A database that is named and not used: the schedules would be looked for in it in vain.
    if kind != "postgresql" and postgres.url is not None:
        yield f"{POSTGRES_URL}: has no effect with CLOCKWORK_STORE={kind}; set CLOCKWORK_STORE=postgresql"
    yield from _pair(POSTGRES_TLS_CERT, postgres.tls_cert, POSTGRES_TLS_KEY, postgres.tls_key)
    if postgres.tls_cert is not None and postgres.tls_ca is None:
        yield f"{POSTGRES_TLS_CA}: is needed with {POSTGRES_TLS_CERT}: a server that is not verified may be any"


def _kafka_problems(kafka: KafkaSettings) -> Iterator[str]:
    if kafka.heartbeat_interval_ms * 3 > kafka.session_timeout_ms:
        yield (
            "CLOCKWORK_HEARTBEAT_INTERVAL_MS: should be at most a third of CLOCKWORK_SESSION_TIMEOUT_MS, "
            "or two lost heartbeats cost the shards"
        )


def _retry_problems(runner: RunnerSettings) -> Iterator[str]:
    if runner.retry_initial_ms > runner.retry_max_ms:
        yield "CLOCKWORK_RETRY_INITIAL_MS: should be at most CLOCKWORK_RETRY_MAX_MS"


def _access_problems(access: AccessSettings, *, search: Literal["on", "off"]) -> Iterator[str]:
    if access.client_pending_max and search == "off":
        yield (
            "CLOCKWORK_CLIENT_PENDING_MAX: is counted in the index of lists, which CLOCKWORK_SEARCH=off does without; "
            "set CLOCKWORK_SEARCH=on, or no such limit"
        )
    if access.auth == "keys" and access.keys_file is None:
        yield "CLOCKWORK_AUTH_KEYS_FILE: is needed with CLOCKWORK_AUTH=keys"
    if access.auth == "oidc" and access.oidc_issuer is None:
        yield "CLOCKWORK_OIDC_ISSUER: is needed with CLOCKWORK_AUTH=oidc"
    if access.auth == "oidc" and access.oidc_audience is None:
        yield "CLOCKWORK_OIDC_AUDIENCE: is needed with CLOCKWORK_AUTH=oidc"
    if access.commands == "on" and access.auth != "none" and access.commands_principal is None:
        yield "CLOCKWORK_COMMANDS_PRINCIPAL: is needed with CLOCKWORK_COMMANDS=on, unless CLOCKWORK_AUTH is none"
    if access.commands_principal not in (None, "*") and access.auth != "keys":
        yield "CLOCKWORK_COMMANDS_PRINCIPAL: a name has no effect without CLOCKWORK_AUTH=keys"
    # A keys file without effect would look like protection.
    if access.auth != "keys" and access.keys_file is not None:
        yield "CLOCKWORK_AUTH_KEYS_FILE: has no effect without CLOCKWORK_AUTH=keys"
    if access.auth != "oidc" and access.oidc_issuer is not None:
        yield "CLOCKWORK_OIDC_ISSUER: has no effect without CLOCKWORK_AUTH=oidc"
    if access.auth != "oidc" and access.oidc_ui_client_id is not None:
        yield "CLOCKWORK_OIDC_UI_CLIENT_ID: has no effect without CLOCKWORK_AUTH=oidc"
    if access.oidc_ui_client_id is None and access.oidc_ui_secret_file is not None:
        yield "CLOCKWORK_OIDC_UI_SECRET_FILE: has no effect without CLOCKWORK_OIDC_UI_CLIENT_ID"
    if "openid" not in access.oidc_ui_scopes.split(" "):
        yield "CLOCKWORK_OIDC_UI_SCOPES: should hold openid, or the issuer gives no ID token"


def _dead_letter_problems(dead_letters: DeadLetterSettings, cluster: str) -> Iterator[str]:
    named = Counter(each.partition("=")[0] for each in dead_letters.topics or ())
    for client in (client for client, times in named.items() if times > 1):
        yield f"{DEAD_LETTER_TOPICS}: names client {client} twice: its dead letters can have one topic"
    for topic in dict.fromkeys(dead_letters.of_clients().values()):
        if topic.startswith((f"{cluster}-", "__")):
            whose = "Kafka" if topic.startswith("__") else "Clockwork"
            yield f"{DEAD_LETTER_TOPICS}: {topic} is {whose}'s own: name a topic of the client's"


def _kafka_security_problems(kafka: KafkaSecuritySettings) -> Iterator[str]:
    # A value without effect in the chosen protocol is refused: a password beside PLAINTEXT would look like protection.
    yield from _pair(TLS_CERT, kafka.tls_cert, TLS_KEY, kafka.tls_key)
    if kafka.sasl:
        yield from _sasl_problems(kafka)
    else:
        yield from _without_effect(
            kafka, {MECHANISM: kafka.sasl_mechanism, USERNAME: kafka.username, PASSWORD: kafka.password}, "SASL_SSL"
        )
    if not kafka.tls:
        files: dict[str, object] = {TLS_CA: kafka.tls_ca, TLS_CERT: kafka.tls_cert, TLS_KEY: kafka.tls_key}
        unchecked: dict[str, object] = {CHECK_HOSTNAME: None if kafka.check_hostname else False}
        yield from _without_effect(kafka, files | unchecked, "SASL_SSL" if kafka.sasl else "SSL")


def _sasl_problems(kafka: KafkaSecuritySettings) -> Iterator[str]:
    given = {USERNAME: kafka.username, PASSWORD: kafka.password}
    if kafka.sasl_mechanism is None:
        yield f"{MECHANISM}: is needed with {PROTOCOL}={kafka.protocol}"
    elif kafka.sasl_mechanism == MSK_IAM:
        if kafka.protocol != "SASL_SSL":
            yield f"{PROTOCOL}: must be SASL_SSL with {MECHANISM}={MSK_IAM}: MSK answers nothing else"
        for name, value in given.items():
            if value is not None:
                yield f"{name}: has no effect with {MECHANISM}={MSK_IAM}, which takes AWS's credentials"
    else:
        for name, value in given.items():
            if value is None:
                yield f"{name}: is needed with {MECHANISM}={kafka.sasl_mechanism}"


def _pair(one_name: str, one: Path | None, other_name: str, other: Path | None) -> Iterator[str]:
    if (one is None) != (other is None):
        missing = one_name if one is None else other_name
        yield f"{missing}: {one_name} and {other_name} belong together, set both or neither"


def _without_effect(kafka: KafkaSecuritySettings, given: dict[str, object], instead: str) -> Iterator[str]:
    for name, value in given.items():
        if value is not None:
            yield f"{name}: has no effect with {PROTOCOL}={kafka.protocol}; did you mean {PROTOCOL}={instead}?"
