"""API keys: generated once, shown once, and kept as SHA-256 digests in a TOML file that may change while the node runs.

A key reads `cw_<id>_<secret>`. The id finds the key's entry and is not secret; the secret is 256 random bits. An entry, as
`python -m clockwork keys new` prints it:

    [[keys]]
    id = "9f86d081884c7d65"
    name = "shop"
    hash = "sha256$<64 hexadecimal digits>"
    clients = ["shop", "shop-*"]
    topics = ["orders", "mail.*"]
    rights = ["create", "cancel", "read"]
    expires = 2027-01-01T00:00:00Z        # optional
    redacted = true                       # optional: answers without the content of schedules

The digest is of the whole key, without a salt. Salted, slow hashes (scrypt, Argon2) make each guess at a password dear. No
price per guess matters for 256 random bits; the delay would only cost threads, queues and caches to hide it.

A client may have several keys. To replace one: add the new entry, move the callers, remove the old entry. A removed or
expired key is refused within seconds on every node that sees the file.

A changed file that cannot be read leaves the keys in memory as they are; the log and `clockwork_auth_keys_current` say so.
At start such a file is refused: a node that admits no caller would look healthy and be useless.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from clockwork.clock import Clock
from clockwork.domain.rights import Principal, Right, names_of
from clockwork.errors import CannotStart, Unauthenticated
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.parsing import toml_of

RELOAD_S: Final = 2.0
"""Between two reads of the file: the longest time for which a removed key stays valid."""
FILE_BYTES_MAX: Final = 8 * 1024 * 1024

_KEY: Final = re.compile(r"cw_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_HASH: Final = re.compile(r"sha256\$[0-9a-f]{64}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One entry of the file, ready for lookups."""

    hash: str
    principal: Principal
    expires_at_ms: int | None

    def is_valid(self, now_ms: int) -> bool:
        return self.expires_at_ms is None or now_ms < self.expires_at_ms


def new_key() -> tuple[str, str]:
    """Generate a key. Returns: the key, and its id."""
    key_id = secrets.token_hex(8)
    return f"cw_{key_id}_{secrets.token_urlsafe(32)}", key_id


def hash_of(key: str) -> str:
    """Return the digest of a key as its entry holds it: `sha256$<hex>`."""
    return f"sha256${hashlib.sha256(key.encode()).hexdigest()}"


# --- the file


def _checked_patterns(patterns: list[str]) -> list[str]:
    names_of(patterns)
    return patterns


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("should have printable characters only")
    return text


def _checked_hash(text: str) -> str:
    if text.startswith("scrypt$"):
        raise ValueError("scrypt hashes are not accepted: make a new key with `python -m clockwork keys new`")
    if _HASH.fullmatch(text) is None:
        raise ValueError("should be sha256$<64 hexadecimal digits>, as `python -m clockwork keys new` prints it")
    return text


_Patterns = Annotated[
    list[Annotated[str, Field(max_length=250), AfterValidator(_printable)]], AfterValidator(_checked_patterns)
]


class KeyEntry(BaseModel):
    """One entry as it is written in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    name: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
    hash: Annotated[str, AfterValidator(_checked_hash)]
    clients: _Patterns
    topics: _Patterns = []
    rights: Annotated[list[Right], Field(min_length=1)]
    expires: AwareDatetime | None = None
    redacted: bool = False


class KeysFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    keys: list[KeyEntry] = []


def parse_keys(text: bytes) -> dict[str, Key]:
    """Parse a keys file. Returns: the keys by id. Raises: ValueError, naming every wrong entry and none of its values."""
    try:
        file = KeysFile.model_validate(toml_of(text))
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False, include_context=False)
        fields = (".".join(str(step) for step in each["loc"]) for each in wrong)
        message = "; ".join(f"{field}: {each['msg']}" for field, each in zip(fields, wrong, strict=True))
        raise ValueError(message) from None  # pydantic's own error holds the values
    keys: dict[str, Key] = {}
    for index, entry in enumerate(file.keys):
        if entry.id in keys:
            raise ValueError(f"keys.{index}.id: is there twice")
        keys[entry.id] = _key(entry)
    return keys


def _key(entry: KeyEntry) -> Key:
    principal = Principal(
        name=entry.name,
        clients=names_of(entry.clients),
        topics=names_of(entry.topics),
        rights=frozenset(entry.rights),
        redacted=entry.redacted,
    )
    expires_at_ms = int(entry.expires.timestamp() * 1_000) if entry.expires is not None else None
    return Key(hash=entry.hash, principal=principal, expires_at_ms=expires_at_ms)


class KeyRing:
    """The keys of one file. Implements `gate.Authenticator`."""

    def __init__(self, path: Path, clock: Clock, telemetry: Telemetry) -> None:
        """Raises: CannotStart if the file cannot be read."""
        self._path = path
        self._clock = clock
        self._telemetry = telemetry
        self._problem: str | None = None
        try:
            self._text = self._read()
            self._keys = parse_keys(self._text)
        except (OSError, ValueError) as error:
            raise CannotStart(f"CLOCKWORK_AUTH_KEYS_FILE: {path}: {_reason(error)}") from error
        self._telemetry.auth_keys(len(self._keys), current=True)

    async def authenticate(self, credential: str) -> Principal:
        """Return the principal of a key. Raises: Unauthenticated."""
        return self.entry_of(credential)[1].principal

    def entry_of(self, credential: str) -> tuple[str, Key]:
        """Return the entry of a key, and its id. Raises: Unauthenticated."""
        match = _KEY.fullmatch(credential)
        key = self._keys.get(match[1]) if match is not None else None
        if (
            match is None
            or key is None
            or not hmac.compare_digest(hash_of(credential), key.hash)
            or not key.is_valid(self._clock.now_ms())
        ):
            # One answer for unknown, removed, expired and wrong keys, so that it tells nothing about the entries.
            raise Unauthenticated("This key is not valid here.")
        return match[1], key

    def find(self, key_id: str) -> Key | None:
        """Return the valid entry with this id."""
        key = self._keys.get(key_id)
        return key if key is not None and key.is_valid(self._clock.now_ms()) else None

    def principal_named(self, name: str) -> Principal | None:
        """Return the principal of the valid entries with this name; None if there is none, or if several differ."""
        now_ms = self._clock.now_ms()
        found = {key.principal for key in self._keys.values() if key.principal.name == name and key.is_valid(now_ms)}
        return found.pop() if len(found) == 1 else None

    async def run(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_S)
            await self.reload()

    async def reload(self) -> None:
        """Read the file again and take over its keys, if it has changed and can be read."""
        try:
            text = await asyncio.to_thread(self._read)
            # The content is compared, not the modification time: a moved link, or a copy that keeps its time, is a change.
            if text == self._text and self._problem is None:
                return
            keys = await asyncio.to_thread(parse_keys, text)
        except (OSError, ValueError) as error:
            # The old keys stay: an operator's slip must not lock every caller out.
            self._keep_keys(_reason(error))
            return
        self._text, self._keys, self._problem = text, keys, None
        self._telemetry.auth_keys(len(keys), current=True)
        log.info("Keys file read", extra={"event": "auth.keys_read", "count": len(keys)})

    def _keep_keys(self, problem: str) -> None:
        self._telemetry.auth_keys(len(self._keys), current=False)
        if problem != self._problem:
            extra = {"event": "auth.keys_kept", "path": str(self._path), "error": problem}
            log.error("The changed keys file cannot be read; the keys read before stay valid", extra=extra)
        self._problem = problem

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
        if len(text) > FILE_BYTES_MAX:
            raise ValueError(f"is longer than {FILE_BYTES_MAX} bytes")
        return text


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
