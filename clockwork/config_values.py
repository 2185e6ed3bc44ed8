"""What a text must look like to be an address or a file: used by the settings, before anything is opened."""

from urllib.parse import urlsplit


def brokers_of(value: object) -> object:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def broker(value: str) -> str:
    parts = urlsplit(f"//{value}")
    if not parts.hostname or not parts.port or parts.netloc != value or "@" in value:
        raise ValueError("should be host:port[,host:port…]")
    return value


def http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("should be http://host:port or https://host, without a user in it")
    return value
