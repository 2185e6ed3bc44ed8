"""Why brokers turn us away, where it is our credentials or certificates: said by nobody else."""

import asyncio
import ssl
from typing import Any, Final

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from clockwork.settings import model as names

_TURNED_AWAY: Final = (
    SaslAuthenticationFailed,
    AuthenticationFailedError,
    IllegalSaslStateError,
    UnsupportedSaslMechanismError,
)


async def why_turned_away(connection: dict[str, Any]) -> str | None:
    """Connects once more to learn whether it is our credentials or certificates that no broker takes: aiokafka tries
    one broker after the other and keeps the reason for its log, which is silent because it says it ten times a second.
    None, if it is something else. `connection`: as `KafkaSettings.connection` gives it. Raises nothing."""
    if connection["security_protocol"] == "PLAINTEXT":
        return None
    given = {name: value for name, value in connection.items() if name not in _OF_CLIENTS}
    for host, port, _ in collect_hosts(connection["bootstrap_servers"]):
        try:
            async with asyncio.timeout(connection["request_timeout_ms"] / 1_000):
                (await create_conn(host, port, **given)).close()
        except _TURNED_AWAY as error:
            mechanism = f"{names.MECHANISM}, {names.USERNAME}, {names.PASSWORD}"
            return f"{host}:{port} refuses who we say we are ({_said(error)}); see {mechanism}"
        except ssl.SSLCertVerificationError as error:
            see = f"{names.TLS_CA}, {names.CHECK_HOSTNAME}"
            return f"{host}:{port} shows a certificate that is not trusted ({error.verify_message}); see {see}"
        except ssl.SSLError as error:
            return f"{host}:{port} does not agree on TLS ({error.reason}); see {names.PROTOCOL}, {names.TLS_CERT}"
        except (KafkaError, OSError, TimeoutError):
            continue  # away, or anything else: whoever asked knows that already
    return None


_OF_CLIENTS: Final = frozenset({"bootstrap_servers", "metadata_max_age_ms"})


def _said(error: KafkaError) -> str:
    said = " ".join(str(argument) for argument in error.args if isinstance(argument, str))
    return said or type(error).__name__
