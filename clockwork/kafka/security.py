"""Proving to Kafka who we are: what the settings mean to aiokafka.

Amazon's MSK takes a signed request to AWS as an OAuth token. A library of Amazon's makes it (`pip install
'clockwork[msk]'`); its credentials are those of the usual AWS chain. aiokafka asks for a token per connection, so one
that expires is no concern of ours: when MSK ends a connection for it, the next one brings a new token.
"""

import asyncio
from importlib import import_module
from typing import Any, Final

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import AuthenticationFailedError

from clockwork.errors import CannotStart
from clockwork.kafka.client import KafkaSecurity
from clockwork.settings import model as names
from clockwork.settings.model import MSK_IAM, KafkaSecuritySettings
from clockwork.tls import CertFiles, client_context

SIGNER: Final = "aws_msk_iam_sasl_signer.MSKAuthTokenProvider"


def kafka_security(settings: KafkaSecuritySettings, *, region: str) -> KafkaSecurity:
    """What the adapters need. Raises: CannotStart, for a file or a library that cannot be used."""
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
    """Tokens for MSK. Raises: CannotStart, if the library is not there."""

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
