"""Settings of the way in and out: TLS for the API, TLS and SASL towards Kafka.

Whatever has no effect in the chosen protocol is refused: a password that is set while the protocol is `PLAINTEXT` means
that somebody believes to be protected and is not. Files are opened where the contexts are made (`clockwork.tls`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr

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
    Path | None, Field(alias=HTTP_CERT, description="PEM, with its chain: HTTPS in place of HTTP; read again on change")
]
HttpTlsKey = Annotated[Path | None, Field(alias=HTTP_KEY, description="PEM, not encrypted; belongs to the certificate")]


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaSecuritySettings:
    """How a node proves to Kafka who it is, and Kafka to the node."""

    protocol: Annotated[
        Protocol,
        _upper,
        Field(alias=PROTOCOL, description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; a local Kafka has the first"),
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Mechanism | None,
        _upper,
        Field(alias=MECHANISM, description=f"PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or {MSK_IAM}; needed with SASL_…"),
    ] = None
    username: Annotated[
        str | None, Field(alias=USERNAME, min_length=1, description="of PLAIN and SCRAM; MSK takes AWS's credentials")
    ] = None
    password: Annotated[SecretStr | None, Field(alias=PASSWORD, min_length=1, description="belongs to the user")] = None
    tls_ca: Annotated[
        Path | None,
        Field(alias=TLS_CA, description="PEM: who may sign the brokers' certificates; default: the system's"),
    ] = None
    tls_cert: Annotated[
        Path | None, Field(alias=TLS_CERT, description="PEM: this node's own, where brokers ask for one (mTLS)")
    ] = None
    tls_key: Annotated[
        Path | None, Field(alias=TLS_KEY, description="PEM, not encrypted; belongs to the certificate")
    ] = None
    check_hostname: Annotated[
        bool,
        Field(alias=CHECK_HOSTNAME, description="false: any name, if its certificate is trusted; for tunnels only"),
    ] = True

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("SASL_")

    @property
    def tls(self) -> bool:
        return self.protocol.endswith("SSL")


def security_disagreements(
    kafka: KafkaSecuritySettings, *, http_cert: Path | None, http_key: Path | None
) -> Iterator[str]:
    """What is fine alone and wrong together; never a value that is secret."""
    yield from _pair(HTTP_CERT, http_cert, HTTP_KEY, http_key)
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
