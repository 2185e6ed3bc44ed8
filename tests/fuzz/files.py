"""Files that an operator writes: the settings and the keys. What is wrong is said in one line, and nothing is raised but
that; a keys' file that is broken later changes nothing."""

import asyncio
from pathlib import Path
from typing import Final

from hypothesis import strategies as st

from clockwork.access.keys import KeyRing, parse_keys
from clockwork.errors import CannotStart
from clockwork.settings.sources import load_settings
from tests.fuzz.tally import Tally

SETTINGS: Final = "settings file"
KEYS: Final = "keys file"

SOUND_SETTINGS: Final = Path("config/default.toml").read_bytes()
SOUND_KEYS: Final = b"""[[keys]]
id = "9f86d081884c7d65"
name = "shop"
hash = "sha256$0000000000000000000000000000000000000000000000000000000000000000"
clients = ["shop", "shop-*"]
topics = ["orders", "mail.*"]
rights = ["create", "cancel", "read"]
expires = 2027-01-01T00:00:00Z
"""
_PIECES: Final = st.one_of(
    st.binary(min_size=1, max_size=6),
    st.sampled_from([b"[" * 5_000, b"a=" + b"[" * 5_000, b"{" * 3_000, b"a=" + b"{a=" * 3_000, b"a." * 3_000 + b"a=1"]),
    st.sampled_from([b"0x" + b"F" * 20_000, b"1" * 10_000, b"1e999999", b"inf", b"nan", b"1979-05-27T07:32:00-25:00"]),
    st.sampled_from(
        [b'"\\uD800"', b"'''", b'"""', b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"true", b"[]", b"{}"]
    ),
    st.sampled_from(
        [b"\nCLOCKWORK_SHARDS=0\n", b"\nCLOCKWORK_SHARDS=1e3\n", b"\nfoo=1\n", b"\n[[keys]]\n", b"\n[keys]\n"]
    ),
)


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """A file with pieces put in, cut out or written over; now and then something else altogether."""
    if not draw(st.integers(0, 9)):
        return draw(st.binary(max_size=200) | _PIECES)
    text = sound
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        until = at + draw(st.integers(0, 20))
        match draw(st.integers(0, 3)):
            case 0:
                text = text[:at] + text[until:]
            case 1:
                text = text[:at] + draw(_PIECES) + text[until:]
            case 2:
                values = [n for n, byte in enumerate(text) if byte == ord("=")] or [0]
                at = draw(st.sampled_from(values)) + 1
                end = text.find(b"\n", at)
                text = text[:at] + draw(_PIECES) + text[end if end >= 0 else len(text) :]
            case _:
                text = text[:at] + draw(_PIECES) + text[at:]
    return text


SETTINGS_FILES: Final = damaged(SOUND_SETTINGS)
KEYS_FILES: Final = damaged(SOUND_KEYS)


def check_settings(text: bytes, folder: Path, tally: Tally) -> None:
    """Raises: whatever `load_settings` raises besides what it says it does."""
    path = folder / "settings.toml"
    path.write_bytes(text)
    try:
        load_settings({"CLOCKWORK_CONFIG": str(path)})
    except CannotStart as refused:
        said = str(refused)
    else:
        tally.add(SETTINGS, "still sound")
        return
    assert said.startswith("settings: ")
    assert len(said) > len("settings: ")
    tally.add(SETTINGS, "refused, with what is wrong")


async def check_keys(text: bytes, ring: KeyRing, path: Path, tally: Tally) -> None:
    """The same for a file of keys that is changed while a node runs: those read before go on counting."""
    await asyncio.to_thread(path.write_bytes, text)
    try:
        found = parse_keys(text)
    except ValueError as error:
        said = str(error)
    else:
        said = f"{len(found)} keys read"
    assert said
    tally.add(KEYS, said if said.endswith(" keys read") else "kept what was read before")
    await ring.reload()
