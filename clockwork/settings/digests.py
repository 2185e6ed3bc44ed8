"""Digests of settings, by which the processes of a cluster tell theirs apart without showing them.

Two bytes for each setting, in the order of `setting_names`: enough to see that two differ, and not enough to guess a value
by. Secrets have none. Processes of different versions have different lists, which are not compared.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydantic import SecretStr

from clockwork.settings.model import Settings
from clockwork.settings.sources import setting_names, setting_values

OWN: Final = frozenset(
    {
        "CLOCKWORK_INSTANCE_ID",
        "CLOCKWORK_HTTP_HOST",
        "CLOCKWORK_HTTP_PORT",
        "CLOCKWORK_PROCESSES",
        "CLOCKWORK_LOG_FORMAT",
        "CLOCKWORK_LOG_LEVEL",
        "CLOCKWORK_UI",
        "CLOCKWORK_UI_READ_UNITS_PER_SECOND",
    }
)
"""Settings that each node may have its own of: the dashboard may be on some nodes alone."""
_BYTES: Final = 2


def compared_names() -> list[str]:
    """The settings that are compared, in order."""
    return [each.name for each in setting_names() if each.name not in OWN]


def digests_of(settings: Settings) -> str:
    """The digests of all compared settings, as text."""
    values = dict(setting_values(settings))
    whole = b"".join(_digest(name, values.get(name)) for name in compared_names())
    return base64.b85encode(whole).decode()


def _digest(name: str, value: object) -> bytes:
    known = value is not None if isinstance(value, SecretStr) else value
    return hashlib.blake2b(f"{name}={known!r}".encode(), digest_size=_BYTES).digest()


def differences(digests: Mapping[str, str]) -> Iterator[tuple[str, Sequence[Sequence[str]]]]:
    """The settings that differ between processes of this version, by name, each with its groups of processes that have it
    alike, the largest first. `digests`: texts of `digests_of`, by process."""
    names = compared_names()
    known: dict[str, bytes] = {}
    for process, text in digests.items():
        try:
            whole = base64.b85decode(text)
        except ValueError:
            continue  # it tells none: nothing depends on it
        if len(whole) == _BYTES * len(names):
            known[process] = whole
    for place, name in enumerate(names):
        groups: dict[bytes, list[str]] = {}
        for process, whole in sorted(known.items()):
            groups.setdefault(whole[_BYTES * place : _BYTES * (place + 1)], []).append(process)
        if len(groups) > 1:
            yield name, sorted(groups.values(), key=lambda group: (-len(group), group))
