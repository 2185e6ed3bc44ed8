"""Checks of single texts, an address for example, made on settings before anything is opened."""

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
_POSTGRES_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9._-]{0,253}|%2F[A-Za-z0-9._%-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII | re.IGNORECASE,
)
"""A name or address, none at all, or the folder of a socket, as libpq has it."""
_REGION: Final = re.compile(r"(?!-)(?![0-9]+$)[A-Za-z0-9-]{1,63}(?<!-)", re.ASCII)
_SERVER: Final = re.compile(r"((?!-)[A-Za-z0-9-]{1,63}(?<!-)\.)*(?!-)[A-Za-z0-9-]{1,63}(?<!-)\.?", re.ASCII)
"""Hosts that the AWS library calls: no underscore."""


def toml_of(text: bytes) -> dict[str, Any]:
    """The content of a TOML file, with or without a byte order mark. Raises: ValueError."""
    try:
        return tomllib.loads(text.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def text_of(value: object) -> str | None:
    """A TOML value as it would stand in the environment; None if the environment could not hold it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() if abs(value) > INTEGER_MAX:
            # Python refuses to spell integers of very many digits, and no setting is so large.
            return None
        case int() | float() | str():
            return str(value)
        case list() if value and all(isinstance(v, str) for v in value):
            return ",".join(value)
        case _:
            return None


def switch(value: object) -> object:
    """The word `on` or `off`, in any letter case, for the other words for them: a YAML file makes `off` false."""
    if not isinstance(value, str):
        return value
    text = value.lower()
    if text in {"true", "yes"}:
        return "on"
    return "off" if text in {"false", "no"} else text


def listed(value: object) -> object:
    """The texts of `a, b`; any other type is returned unchanged."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def brokers_of(value: object) -> object:
    """The addresses of `host:port, host:port`; empty ones stay, for `broker` to refuse them."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def broker(value: str) -> str:
    """The address of a broker, unchanged. Raises: ValueError."""
    parts = urlsplit(f"//{value}")
    if not parts.hostname or not parts.port or parts.netloc != value or "@" in value or _has_blank(value):
        raise ValueError("should be host:port[,host:port…]")
    return value


def region_name(value: str) -> str:
    """The name of an AWS region, unchanged. Raises: ValueError."""
    if _REGION.fullmatch(value) is None:
        raise ValueError("should be the name of a region, such as eu-central-1")
    return value


def http_url(value: str) -> str:
    """An http or https URL, unchanged. Raises: ValueError."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None or _has_blank(value):
        raise ValueError("should be http://host:port or https://host, without a user in it")
    if ":" not in parts.hostname and _SERVER.fullmatch(parts.hostname) is None:
        raise ValueError("should have a host of A-Z a-z 0-9 - and dots")
    if parts.port == 0:
        raise ValueError("should have a port from 1 to 65535")
    return value


def postgres_url(value: str) -> str:
    """`postgresql://[user[:password]@][host[:port],…][/database][?option=value…]`, unchanged. Raises: ValueError, without
    the value, which may hold a password."""
    scheme, found, rest = value.partition("://")
    user, _, hosts = re.split(r"[/?]", rest, maxsplit=1)[0].rpartition("@")
    right = found and scheme in {"postgresql", "postgres"} and not _has_blank(value) and "#" not in value
    # A second one would make a part of the password a host, which is looked up and logged; so would an option without "=".
    right = right and "@" not in user and _is_query(rest.partition("?")[2])
    matches = [_POSTGRES_HOST.fullmatch(host) for host in hosts.split(",")]
    if not right or not all(match is not None and _is_port(match.group("port")) for match in matches):
        raise ValueError(
            "should be postgresql://user@host:port/database, with several hosts separated by commas; other characters than "
            "A-Z a-z 0-9 - . _ ~ in user and password as %XX"
        )
    return value


def _is_query(text: str) -> bool:
    return all("=" in option for option in text.split("&")) if text else True


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
    """An https URL, or an http one of this machine, unchanged. Raises: ValueError."""
    parts = urlsplit(http_url(value))
    if parts.scheme != "https" and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
        raise ValueError("should be https://host")
    return value


def _has_blank(value: str) -> bool:
    return any(character.isspace() for character in value)


def topic_rate(value: str) -> str:
    """A rate limit `topic=per second`, unchanged. Raises: ValueError."""
    topic, _, rate = value.partition("=")
    if not topic or not rate.isascii() or not rate.isdigit() or not 0 <= int(rate) <= 1_000_000:
        raise ValueError("should be topic=number[,topic=number…], up to 1000000 a second, 0 for no limit")
    return value


def client_topic(value: str) -> str:
    """A pair `clientId=topic`, unchanged. Raises: ValueError."""
    client, _, topic = value.partition("=")
    if not (is_client_id(client) and is_topic(topic)):
        raise ValueError(
            "should be clientId=topic[,clientId=topic…], of A-Z a-z 0-9 . _ -, a client of at most 128 and a topic of at "
            "most 249 characters"
        )
    return value
