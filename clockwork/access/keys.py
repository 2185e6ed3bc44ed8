"""API keys: made once, shown once, kept as salted scrypt hashes in a TOML file that may be changed while the node runs.

A key reads `cw_<id>_<secret>`. The id finds its entry, so that one hash is computed and not one for each entry; it is no
secret. The entry, as `python -m clockwork keys new` prints it:

    [[keys]]
    id = "9f86d081884c7d65"
    name = "shop"
    hash = "scrypt$14$8$1$<salt>$<hash>"
    clients = ["shop", "shop-*"]
    topics = ["orders", "mail.*"]
    rights = ["create", "cancel", "read"]
    expires = 2027-01-01T00:00:00Z        # optional

A client may have several keys: to change one, add the new, move the callers, remove the old. What is removed or has
expired counts no longer within seconds, on every node that sees the file.

A changed file that cannot be read changes nothing: the keys read before go on counting, a line in the log and
`clockwork_auth_keys_current` say so. At the start it is refused: a node that let nobody in would only look well.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import re
import secrets
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from clockwork.access.verified import Verified
from clockwork.clock import Clock
from clockwork.domain.rights import Principal, Right, names_of
from clockwork.errors import CannotStart, TooManyRequests, Unauthenticated
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.parsing import toml_of

RELOAD_S: Final = 2.0
"""How often the file is looked at: how long a removed key may go on counting."""
FILE_BYTES_MAX: Final = 8 * 1024 * 1024
SCRYPT_LN: Final = 14
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
"""16 MiB and some 50 ms. The secrets are 256 random bits, so the hash only has to make a stolen file useless."""
SCRYPTS_AT_ONCE: Final = 2
"""In threads, beside the event loop; more would take the cores from it."""
SCRYPTS_WAITING_MAX: Final = 64
HASH_BYTES: Final = 32
SALT_BYTES: Final = 16

_KEY: Final = re.compile(r"cw_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyHash:
    """A salted scrypt hash and what it was made with."""

    ln: int
    """Binary logarithm of the cost."""
    r: int
    p: int
    salt: bytes
    digest: bytes

    def fits(self, credential: str) -> bool:
        """Slow on purpose: not on the event loop."""
        return hmac.compare_digest(_scrypt(credential, ln=self.ln, r=self.r, p=self.p, salt=self.salt), self.digest)

    def text(self) -> str:
        parts = (base64.b64encode(part).decode() for part in (self.salt, self.digest))
        return "$".join(["scrypt", str(self.ln), str(self.r), str(self.p), *parts])


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One entry of the file."""

    id: str
    hash: KeyHash
    principal: Principal
    expires_at_ms: int | None

    def counts(self, now_ms: int) -> bool:
        return self.expires_at_ms is None or now_ms < self.expires_at_ms


def _scrypt(credential: str, *, ln: int, r: int, p: int, salt: bytes) -> bytes:
    # Some more memory than scrypt itself needs: OpenSSL counts its own.
    return hashlib.scrypt(
        credential.encode(), salt=salt, n=1 << ln, r=r, p=p, maxmem=(128 * r << ln) + 1024 * 1024, dklen=HASH_BYTES
    )


def hash_of(credential: str) -> KeyHash:
    """A new hash of a key, with a salt of its own."""
    salt = secrets.token_bytes(SALT_BYTES)
    digest = _scrypt(credential, ln=SCRYPT_LN, r=SCRYPT_R, p=SCRYPT_P, salt=salt)
    return KeyHash(ln=SCRYPT_LN, r=SCRYPT_R, p=SCRYPT_P, salt=salt, digest=digest)


def new_credential() -> tuple[str, str]:
    """A new key and its id."""
    key_id = secrets.token_hex(8)
    return f"cw_{key_id}_{secrets.token_urlsafe(32)}", key_id


def read_hash(text: str) -> KeyHash:
    """Raises: ValueError. Costs beyond what a node should spend are refused: 64 MiB, and four times the usual time."""
    form = re.fullmatch(r"scrypt\$(\d{1,2})\$(\d{1,2})\$(\d)\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)", text)
    if form is None:
        raise ValueError("should be scrypt$<ln>$<r>$<p>$<salt>$<hash>, as `python -m clockwork keys new` prints it")
    ln, r, p = (int(number) for number in form.groups()[:3])
    if not (14 <= ln <= 16 and r == SCRYPT_R and 1 <= p <= 4 and (p << ln) <= 1 << 16):
        raise ValueError(f"should have 14 to 16 as ln, {SCRYPT_R} as r, and p so that the cost stays within four times")
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in form.groups()[3:])
    except binascii.Error as error:
        raise ValueError("should have salt and hash in base64") from error
    if len(salt) < SALT_BYTES or len(digest) != HASH_BYTES:
        raise ValueError(f"should have {SALT_BYTES} bytes of salt and {HASH_BYTES} of hash")
    return KeyHash(ln=ln, r=r, p=p, salt=salt, digest=digest)


# --- the file


def _pattern_list(patterns: list[str]) -> list[str]:
    names_of(patterns)
    return patterns


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("should have printable characters only")
    return text


def _hash_text(text: str) -> str:
    read_hash(text)
    return text


_Patterns = Annotated[
    list[Annotated[str, Field(max_length=250), AfterValidator(_printable)]], AfterValidator(_pattern_list)
]


class KeyForm(BaseModel):
    """One entry, as it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    name: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
    hash: Annotated[str, AfterValidator(_hash_text)]
    clients: _Patterns
    topics: _Patterns = []
    rights: Annotated[list[Right], Field(min_length=1)]
    expires: AwareDatetime | None = None


class KeysForm(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    keys: list[KeyForm] = []


def read_keys(text: bytes) -> dict[str, Key]:
    """The entries by their ids. Raises: ValueError, naming every wrong entry, without any of its values."""
    try:
        form = KeysForm.model_validate(toml_of(text))
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False, include_context=False)
        places = (".".join(str(step) for step in each["loc"]) for each in wrong)
        message = "; ".join(f"{place}: {each['msg']}" for place, each in zip(places, wrong, strict=True))
        raise ValueError(message) from None  # the error itself holds what was written
    found: dict[str, Key] = {}
    for index, each in enumerate(form.keys):
        if each.id in found:
            raise ValueError(f"keys.{index}.id: is there twice")
        found[each.id] = _key(each)
    return found


def _key(form: KeyForm) -> Key:
    principal = Principal(
        name=form.name,
        clients=names_of(form.clients),
        topics=names_of(form.topics),
        rights=frozenset(form.rights),
    )
    expires_at_ms = int(form.expires.astimezone(UTC).timestamp() * 1_000) if form.expires is not None else None
    return Key(id=form.id, hash=read_hash(form.hash), principal=principal, expires_at_ms=expires_at_ms)


class KeyRing:
    """The keys of one file. Implements `auth.Authenticator`."""

    def __init__(self, path: Path, clock: Clock, telemetry: Telemetry) -> None:
        """Raises: StartRefused if the file cannot be read."""
        self._path = path
        self._clock = clock
        self._telemetry = telemetry
        self._verified: Verified[Key] = Verified()
        self._scrypts = asyncio.Semaphore(SCRYPTS_AT_ONCE)
        self._waiting = 0
        self._problem: str | None = None
        try:
            self._text = self._read()
            self._keys = read_keys(self._text)
        except (OSError, ValueError) as error:
            raise CannotStart(f"CLOCKWORK_AUTH_KEYS_FILE: {path}: {_said(error)}") from error
        self._telemetry.auth_keys(len(self._keys), current=True)

    def known(self, credential: str) -> Principal | None:
        """Whose key it is, if it was checked before and its entry is still the one that it was checked against."""
        verified = self._verified.get(credential)
        if verified is None:
            return None
        key = self._keys.get(verified.id)
        if key is None or key.hash != verified.hash or not key.counts(self._clock.now_ms()):
            self._verified.drop(credential)
            return None
        return key.principal

    async def check(self, credential: str) -> Principal:
        """Whose key it is. Raises: Unauthenticated, TooManyRequests (too many wait for their check)."""
        form = _KEY.fullmatch(credential)
        key = self._keys.get(form.group(1)) if form is not None else None
        if key is None or not key.counts(self._clock.now_ms()) or not await self._fits(key, credential):
            # One answer for unknown, removed, expired and wrong: whoever has no key learns nothing.
            raise Unauthenticated("This key is not valid here.")
        self._verified.put(credential, key)
        return key.principal

    def named(self, name: str) -> Principal | None:
        """Who bears this name, by the entries that count; None if nobody does, or several who may do different things."""
        now_ms = self._clock.now_ms()
        found = {key.principal for key in self._keys.values() if key.principal.name == name and key.counts(now_ms)}
        return found.pop() if len(found) == 1 else None

    async def _fits(self, key: Key, credential: str) -> bool:
        if self._waiting >= SCRYPTS_WAITING_MAX:
            raise TooManyRequests("Too many keys are being checked.", retry_after_s=1)
        self._waiting += 1
        try:
            async with self._scrypts:
                return await asyncio.to_thread(key.hash.fits, credential)
        finally:
            self._waiting -= 1

    async def run(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_S)
            await self.reload()

    async def reload(self) -> None:
        """Reads the file again, if it has changed. Its content is compared, not its time: links that are moved and copies
        that keep their time are changes as well, and it is small."""
        try:
            text = await asyncio.to_thread(self._read)
            if text == self._text and self._problem is None:
                return
            keys = await asyncio.to_thread(read_keys, text)
        except (OSError, ValueError) as error:
            # The keys read before go on counting: an operator's slip must not lock everybody out.
            self._keep(_said(error))
            return
        self._text, self._keys, self._problem = text, keys, None
        self._telemetry.auth_keys(len(keys), current=True)
        log.info("Keys read", extra={"event": "auth.keys_read", "count": len(keys)})

    def _keep(self, problem: str) -> None:
        self._telemetry.auth_keys(len(self._keys), current=False)
        if problem != self._problem:
            extra = {"event": "auth.keys_kept", "path": str(self._path), "error": problem}
            log.error("Keys cannot be read anew; those read before go on counting", extra=extra)
        self._problem = problem

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
        if len(text) > FILE_BYTES_MAX:
            raise ValueError(f"is longer than {FILE_BYTES_MAX} bytes")
        return text


def _said(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
