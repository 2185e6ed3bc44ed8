"""TLS and SASL towards Kafka: the settings as aiokafka takes them, and the reasons for which brokers refuse a connection.

Amazon's MSK takes a signed request to AWS as an OAuth token. A library of Amazon's makes it (`pip install
'clockwork[msk]'`); its credentials are those of the usual AWS chain. aiokafka asks for a token per connection, so an
expired token needs no care here: MSK ends the connection for it, and the next one brings a new token.
"""

import asyncio
import ssl
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from clockwork.errors import CannotStart
from clockwork.settings import model as names
from clockwork.settings.model import MSK_IAM, KafkaSecuritySettings
from clockwork.tls import CertFiles, client_context

SIGNER: Final = "aws_msk_iam_sasl_signer.MSKAuthTokenProvider"
_NOT_AUTHENTICATED: Final = (
    SaslAuthenticationFailed,
    AuthenticationFailedError,
    IllegalSaslStateError,
    UnsupportedSaslMechanismError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaSecurity:
    """Proof of identity towards the brokers, loaded. Secrets are left out of its text form, so that no log shows them."""

    protocol: str = "PLAINTEXT"
    """`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`."""
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    sasl_mechanism: str = "PLAIN"
    """`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER`."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token_provider: AbstractTokenProvider | None = field(default=None, repr=False)
    """For `OAUTHBEARER`."""

    def arguments(self) -> dict[str, Any]:
        """The arguments of aiokafka's classes and of `create_conn`."""
        return {
            "security_protocol": self.protocol,
            "ssl_context": self.ssl_context,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
            "sasl_oauth_token_provider": self.token_provider,
        }


def kafka_security(settings: KafkaSecuritySettings, *, region: str) -> KafkaSecurity:
    """Loads the files and libraries that the settings name. Raises: CannotStart, if one cannot be used."""
    context = None
    if settings.tls:
        context = client_context(
            ca=settings.tls_ca,
            ca_setting=names.TLS_CA,
            own=kafka_cert_files(settings),
            check_hostname=settings.check_hostname,
        )
    iam = settings.sasl_mechanism == MSK_IAM
    return KafkaSecurity(
        protocol=settings.protocol,
        ssl_context=context,
        sasl_mechanism="OAUTHBEARER" if iam else settings.sasl_mechanism or "PLAIN",
        username=settings.username,
        password=settings.password.get_secret_value() if settings.password is not None else None,
        token_provider=MskTokens(region) if iam else None,
    )


def kafka_cert_files(settings: KafkaSecuritySettings) -> CertFiles | None:
    """This node's own certificate; None if it shows none."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return CertFiles(
        cert=settings.tls_cert, key=settings.tls_key, cert_setting=names.TLS_CERT, key_setting=names.TLS_KEY
    )


class MskTokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Tokens for MSK. Raises: CannotStart, if the library is missing."""

    def __init__(self, region: str) -> None:
        self._region = region
        try:
            self._signer: Any = import_module(SIGNER)
        except ImportError as error:
            raise CannotStart(
                f"{names.MECHANISM}: {MSK_IAM} needs a library that is missing: pip install 'clockwork[msk]'"
            ) from error

    async def token(self) -> str:
        """Raises: KafkaError. Anything else would end aiokafka's background tasks."""
        try:
            # In a thread: it may ask AWS for credentials, and it waits.
            token, _expires_ms = await asyncio.to_thread(self._signer.generate_auth_token, self._region)
        except Exception as error:
            raise AuthenticationFailedError(f"no token for MSK: {type(error).__name__}: {error}") from error
        return str(token)


async def authentication_problem(
    security: KafkaSecurity, *, brokers: tuple[str, ...], client_id: str, request_timeout_ms: int
) -> str | None:
    """Connects once more to learn whether the brokers refuse our credentials or certificates. aiokafka tries one broker
    after the other and keeps the reason for its log, which is silent because it says it ten times a second.

    Returns one line that names the settings; None if it is something else. Raises nothing.
    """
    if security.protocol == "PLAINTEXT":
        return None
    for host, port, _ in collect_hosts(list(brokers)):
        try:
            async with asyncio.timeout(request_timeout_ms / 1_000):
                connection = await create_conn(
                    host, port, client_id=client_id, request_timeout_ms=request_timeout_ms, **security.arguments()
                )
                connection.close()
        except _NOT_AUTHENTICATED as error:
            mechanism = f"{names.MECHANISM}, {names.USERNAME}, {names.PASSWORD}"
            return f"{host}:{port} refuses our credentials ({_detail(error)}); see {mechanism}"
        except ssl.SSLCertVerificationError as error:
            see = f"{names.TLS_CA}, {names.CHECK_HOSTNAME}"
            return f"{host}:{port} shows a certificate that is not trusted ({error.verify_message}); see {see}"
        except ssl.SSLError as error:
            return f"{host}:{port} does not agree on TLS ({error.reason}); see {names.PROTOCOL}, {names.TLS_CERT}"
        except (KafkaError, OSError, TimeoutError):
            continue  # the brokers are away, or it is another fault: the caller's own error says so
    return None


def _detail(error: KafkaError) -> str:
    texts = " ".join(str(argument) for argument in error.args if isinstance(argument, str))
    return texts or type(error).__name__
