"""Credentials that were checked before, so that a request costs no hash that is slow on purpose and no signature.

Kept under a keyed hash whose key is made anew at each start: what is in memory is of no use to whoever reads it later,
and nobody outside can choose credentials that collide. Only good ones are kept, so guesses take no room.
"""

import hashlib
import secrets
from typing import Final, Generic, TypeVar

CREDENTIALS_MAX: Final = 10_000
"""Past this the one that was not used for the longest is checked again at its next use."""

_Value = TypeVar("_Value")


class Verified(Generic[_Value]):
    """What is known of each credential."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._found: dict[bytes, _Value] = {}

    def get(self, credential: str) -> _Value | None:
        digest = self._digest(credential)
        value = self._found.pop(digest, None)
        if value is not None:
            self._found[digest] = value
        return value

    def put(self, credential: str, value: _Value) -> None:
        while len(self._found) >= CREDENTIALS_MAX:
            self._found.pop(next(iter(self._found)))
        self._found[self._digest(credential)] = value

    def drop(self, credential: str) -> None:
        self._found.pop(self._digest(credential), None)

    def _digest(self, credential: str) -> bytes:
        return hashlib.blake2b(credential.encode(), key=self._key, digest_size=32).digest()
