"""What single texts must look like, an address for example: used by the settings, before anything is opened."""

import re
import tomllib
from ipaddress import IPv6Address
from typing import Any, Final
from urllib.parse import urlsplit

from clockwork.domain.names import is_client_id, is_topic

INTEGER_MAX: Final = 2**63
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}", re.ASCII)
_PAGE_URL: Final = re.compile(
    r"https?://(?:[A-Za-z0-9._-]{1,253}|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?(?:/[^?#\\\s]*)?",
    re.ASCII | re.IGNORECASE,
)


def toml_of(text: bytes) -> dict[str, Any]:
    """A TOML file; a byte order mark at its beginning is ignored. Raises: ValueError."""
    try:
        return tomllib.loads(text.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def text_of(value: object) -> str | None:
    """A TOML value as it would stand in the environment; None: it could not."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() if abs(value) > INTEGER_MAX:
            return None  # of more digits than Python spells, maybe; no setting is so large
        case int() | float() | str():
            return str(value)
        case list() if value and all(isinstance(v, str) for v in value):
            return ",".join(value)
        case _:
            return None


def switch(value: object) -> object:
    """`on` or `off`, in any letter case, from the other words for them: a YAML file makes `off` false."""
    if not isinstance(value, str):
        return value
    text = value.lower()
    if text in {"true", "yes"}:
        return "on"
    return "off" if text in {"false", "no"} else text


def listed(value: object) -> object:
    """`a, b` as a list."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def brokers_of(value: object) -> object:
    """`host:port, host:port` as a list; gaps stay, for `broker` to refuse them."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def broker(value: str) -> str:
    """Raises: ValueError."""
    parts = urlsplit(f"//{value}")
    if not parts.hostname or not parts.port or parts.netloc != value or "@" in value:
        raise ValueError("should be host:port[,host:port…]")
    return value


def http_url(value: str) -> str:
    """Raises: ValueError."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("should be http://host:port or https://host, without a user in it")
    return value


def page_url(value: str) -> str:
    """`https://host[:port][/path]`. Raises: ValueError."""
    match = _PAGE_URL.fullmatch(value)
    if match is None or not _is_port(match.group("port")) or not _is_ipv6(match.group("ipv6")):
        raise ValueError("should be https://host[:port][/path], without a user, a query or a fragment")
    return value


def _is_port(digits: str | None) -> bool:
    return digits is None or 1 <= int(digits) <= 65_535


def _is_ipv6(text: str | None) -> bool:
    try:
        return text is None or IPv6Address(text) is not None
    except ValueError:
        return False


def host_name(value: str) -> str:
    """The name of a host, without a port. Raises: ValueError."""
    if _HOST.fullmatch(value) is None:
        raise ValueError("should be names of hosts, separated by commas, without a port; others than ASCII as xn--…")
    return value


def safe_url(value: str) -> str:
    """https, or http to this machine itself. Raises: ValueError."""
    parts = urlsplit(http_url(value))
    if parts.scheme != "https" and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
        raise ValueError("should be https://host")
    return value


def topic_rate(value: str) -> str:
    """`topic=per second`. Raises: ValueError."""
    topic, _, rate = value.partition("=")
    if not topic or not rate.isascii() or not rate.isdigit() or not 0 <= int(rate) <= 1_000_000:
        raise ValueError("should be topic=number[,topic=number…], up to 1000000 a second, 0 for no limit")
    return value


def client_topic(value: str) -> str:
    """`clientId=topic`. Raises: ValueError."""
    client, _, topic = value.partition("=")
    if not (is_client_id(client) and is_topic(topic)):
        raise ValueError(
            "should be clientId=topic[,clientId=topic…], of A-Z a-z 0-9 . _ -, a client of at most 128 and a topic of at "
            "most 249 characters"
        )
    return value
